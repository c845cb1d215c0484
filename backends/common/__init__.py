"""Code that several backends share: TLS, values, batches, keep-alives, servers."""
