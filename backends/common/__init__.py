"""Shared by the backends: TLS, host names, the server in use, batches."""
