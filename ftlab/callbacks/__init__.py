"""Callbacks and loggers that every run has."""
