"""Code that several backends share: TLS, values, batches, keep-alives, log lines about servers."""
