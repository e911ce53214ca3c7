"""Data: sources of rows, the token cache, the order of rows, and the loader."""
