"""A registry as the benchmarks use it: a real server, its floor and its counters.

The floor is the time of the bare requests that the job needs. The benchmark makes them beforehand,
and a minimal client sends them.
"""

from __future__ import annotations

from pathlib import Path

from support.servers import Server

from benchmarks.agents import Host

BASE, NAME, OWNER = "/bench", "web", "FLOOR"


class Registry:
    """A running server. A service's `key` is its id in Consul and etcd, else ``ip:port``."""

    scheme = ""
    path = BASE
    server: Server

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The server's ``host:port``."""
        raise NotImplementedError

    @property
    def uri(self) -> str:
        """The registry URI for the agent."""
        return self.uri_at(self.address)

    def uri_at(self, address: str) -> str:
        """The URI for another way to the server."""
        return f"{self.scheme}://{address}{self.path}"

    def count(self, host: Host | None = None) -> int:
        """How many services the registry holds, or those of one host."""
        raise NotImplementedError

    @staticmethod
    def start_of(host: Host | None) -> str:
        """The start of a host's places under the name of a service. Empty for all hosts."""
        return f"{host.name}:" if host else ""

    def clear(self, host: Host) -> None:
        """Remove the services of a host whose agent has ended."""
        raise NotImplementedError

    def floor(self, n: int) -> float:
        """The least seconds for `n` services. The registry holds them afterwards."""
        raise NotImplementedError

    def requests(self) -> int:
        """How many requests the server has received since its start."""
        raise NotImplementedError

    def reset(self) -> None:
        """Remove all services."""
        self.server.kill()
        self.server.wipe()
        self.server.start()
