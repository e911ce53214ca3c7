"""A tuning strategy, a task and a data source for ftlab, from outside it."""
