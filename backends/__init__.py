"""The backends that come with Registrator, one module per kind of registry."""
