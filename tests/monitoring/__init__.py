"""A real Prometheus watches an agent: what it sees, and which alerts fire."""
