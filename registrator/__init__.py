"""Registrator: one agent for each Docker host that keeps service registries right.

Data flows one way::

    engine -> desired -> Snapshot -> sync -> backends

`model` holds the words that these share. `options`, `config` and `cli` read what the operator said.
`agent` runs the threads. `status` keeps what the agent reports of itself. The core knows no
registry: it finds backends by URI scheme through the entry-point group ``registrator.backends``.
"""

__version__ = "1.0.0"
