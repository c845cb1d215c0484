"""Brings one registry in step with the desired services, and tries again after failures."""
