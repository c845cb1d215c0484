"""One folder or file per registry, each behind the `Backend` protocol of `registrator.backend`."""
