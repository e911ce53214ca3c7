"""Offline material for tests of ftlab and of its plugins."""
