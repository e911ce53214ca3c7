"""Data sources: one file each; `base` holds the contract."""
