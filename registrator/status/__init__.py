"""Keeps what the agent knows of itself, logs its changes, and serves the health note."""
