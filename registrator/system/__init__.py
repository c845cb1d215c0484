"""Talks to the operating system: log, memory, process list, systemd, host addresses."""
