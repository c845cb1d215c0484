"""The rows of the board: what the agent knows of its engine and of each registry at one moment.

A row is immutable. The writer replaces it as a whole, so a reader never sees half of a
change and needs no lock. Moments are in seconds since the epoch, and 0 means never.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from registrator.model import Problem, Snapshot


@dataclass(frozen=True, slots=True)
class Row:
    """Something that the agent talks to, and whether its last attempt succeeded.

    `failures` is how many attempts failed in a row, and `error` why the last one did. Both are
    empty after a success. `since` is when the present state began: the first failure of an outage,
    or the success that ended one. `next_attempt` is when the next one is due after a failure.
    """

    name: str
    since: float = 0.0
    error: str = ""
    failures: int = 0
    last_success: float = 0.0
    next_attempt: float = 0.0


@dataclass(frozen=True, slots=True)
class AgentRow:
    """The agent itself. `started` is when its process began.

    `hostname` is the first part of ids, and empty before the engine answers. `policy` is
    ``internal`` or ``published``. `address` is the one at which published ports are registered, as
    far as it is known, and `network` the one of ``-network``.
    """

    version: str = ""
    started: float = 0.0
    hostname: str = ""
    policy: str = "published"
    address: str = ""
    network: str = ""

    @property
    def addresses(self) -> str:
        """At which addresses services are registered, in words."""
        if self.policy == "internal":
            where = f" in the network {self.network}" if self.network else ""
            return f"exposed ports at the containers' own addresses{where}"
        if self.address:
            return f"published ports at {self.address}"
        return "published ports at no address, as none is known"


@dataclass(frozen=True, slots=True)
class EngineRow(Row):
    """The Docker engine. `version` is empty until the engine answers for the first time."""

    address: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class RegistryRow(Row):
    """One registry.

    `realised` is the snapshot that the last successful step wrote. `problems` says for each of its
    services that is not registered why, by service id. Services that the registry's filter
    excludes are not among them, but in `realised.excluded`. `server` is the one in use, if the
    backend tells it.
    """

    realised: Snapshot | None = None
    problems: Mapping[str, Problem] = field(default_factory=dict)
    last_listing: float = 0.0
    server: str = ""

    @property
    def in_sync(self) -> bool:
        """Whether the last attempt succeeded and wrote all that can be written.

        Services with a problem do not count: a registry that rejects a service, or that holds
        somebody else's entry in its place, is in sync.
        """
        return self.realised is not None and self.realised.settled and not self.failures

    @property
    def registered(self) -> int:
        """How many services of the realised snapshot are registered."""
        return len(self.realised.services) - len(self.problems) if self.realised else 0
