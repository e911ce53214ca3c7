"""What is made of a study: tables, a page, figures."""
