"""Reads Docker: what runs on this host now, and the events that tell what changed."""
