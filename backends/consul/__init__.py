"""Consul: services of a Consul agent (`agent`) and keys of its store (`kv`)."""
