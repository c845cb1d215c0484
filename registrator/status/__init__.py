"""Keeps what the agent reports of itself: its rows for engine and registries, and its outages."""
