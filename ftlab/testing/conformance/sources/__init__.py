"""The checks of data sources."""
