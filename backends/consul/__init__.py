"""Consul: services at a Consul agent (`backend`), and keys in its key-value store (`kv`)."""
