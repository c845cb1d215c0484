"""One contract over every backend: the protocol's guarantees, each against the real server.

`registry` says what the suite needs of a kind of registry, the modules named like registries give
it, `conftest` runs the servers, and each test runs over all kinds that it makes sense for.
"""
