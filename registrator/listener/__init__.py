"""Answers who asks the agent: over a socket for the commands, and at the address of ``-http``."""
