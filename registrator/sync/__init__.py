"""Keeps one registry in sync with the desired services, and tries again after failures."""
