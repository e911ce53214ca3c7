"""The checks of tasks."""
