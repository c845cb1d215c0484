"""Keeps what the agent knows of itself, logs its changes, and lists its present problems."""
