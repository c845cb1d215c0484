"""Measures the requests to an engine."""

from registrator.engine.client import DockerEngine
from registrator.model import Container
from registrator.status.instruments import Stopwatch


class TimedEngine:
    """The part of an engine that an inventory needs. `watch` measures each request."""

    def __init__(self, engine: DockerEngine, watch: Stopwatch) -> None:
        self._engine = engine
        self._measure = watch.measure
        self.interrupt = engine.interrupt

    def ping(self) -> None:
        """Return if the engine answers."""
        with self._measure("ping"):
            self._engine.ping()

    def running(self) -> dict[str, int]:
        """The running containers, as `DockerEngine.running` tells them."""
        with self._measure("list"):
            return self._engine.running()

    def inspect(self, container_id: str, timeout: float | None = None) -> Container | None:
        """The container as it is now, as `DockerEngine.inspect` tells it."""
        with self._measure("inspect"):
            return self._engine.inspect(container_id, timeout)
