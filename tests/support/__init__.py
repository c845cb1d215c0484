"""Helpers for all tests. pytest has ``tests/`` on the path, so it is ``from support.… import``."""
