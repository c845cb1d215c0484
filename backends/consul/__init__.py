"""Consul: services at a Consul agent (`agent`), and keys in its key-value store (`kv`)."""
