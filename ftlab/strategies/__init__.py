"""Tuning strategies: one file each; `base` holds the contract."""
