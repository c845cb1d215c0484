"""What several backends need: TLS, values, transaction sizes, and the log of the server in use."""
