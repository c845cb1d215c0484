"""Keeps what the agent knows of itself: the board, which log lines and health note read."""
