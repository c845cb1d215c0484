"""Registrator: one agent per Docker host that keeps service registries right.

The flow, which is also the order of the modules::

    docker_engine -> inventory (services) -> Snapshot -> reconciler (plan) -> backend

`model` holds the words they share, `config` and `cli` what the operator said, `agent` the
threads that run it all. The core knows no registry: backends are found by URI scheme through
the entry-point group ``registrator.backends``.
"""

__version__ = "1.0.0"
