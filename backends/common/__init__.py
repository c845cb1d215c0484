"""What several backends need: TLS, values, transaction sizes, keep-alives, the server in use."""
