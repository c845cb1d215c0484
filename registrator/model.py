"""The types that all modules share: containers, services, snapshots, entries and plans.

All of it is immutable, so that threads may share it, and has no behaviour beyond its own data.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from types import MappingProxyType
from typing import Any

from registrator.derived import NOTHING_DERIVED, Derived

# Everybody imports these from here.
from registrator.ownership import Identity as Identity
from registrator.ownership import Mark as Mark

# Variables and labels of a container matter if they start with this.
METADATA_PREFIX = "SERVICE_"

# Marks a field of a service that is no part of its record.
UNRECORDED = MappingProxyType({"recorded": False})

# One empty mapping for all entries without facts: thousands of empty ones take memory.
NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class ContainerHealth(Enum):
    """The result of a container's own health check. NONE also stands for no check."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container. `host_port` is 0 if it is exposed but not published."""

    private: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """The facts of one container that the agent needs: a fraction of an inspection's answer.

    `env` and `labels` hold the pairs that can matter (see `engine.answers`). `networks` holds the
    container's own address in each network, its main network first. `networks_6` holds the IPv6
    addresses of those that also have IPv4. `started_at` is in ns since the epoch, by the engine's
    clock. `exit_code` is None while the container runs. `unreadable` says which parts of the answer
    cannot be read, and is empty if there is none. `stop_signal` asks the container to end. It is 0
    if events cannot tell which signal was sent. `stop_timeout` is the time that the container then
    gets, in seconds, and negative if there is no limit. `derived` is made of the whole answer.
    `probed_at` is when the last probe ended that the engine tells of, like `started_at`, or 0.
    """

    id: str
    name: str
    image: str
    hostname: str
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network_mode: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)
    networks_6: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    started_at: int = 0
    exit_code: int | None = None
    unreadable: str = ""
    stop_signal: int = 15
    stop_timeout: int = 10
    paused: bool = False
    derived: Derived = NOTHING_DERIVED
    health: ContainerHealth = ContainerHealth.NONE
    probed_at: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A hint that a container changed. `time` is the engine's clock in nanoseconds (0: unknown).

    `container_id` is empty if it cannot be read. Then any container may have changed. `signal` is
    the one that was sent to the container, if the event is a `kill` and tells it. `health` is what
    an event about a probe tells, or None.
    """

    container_id: str
    action: str
    time: int
    exit_code: int | None = None
    signal: int | None = None
    health: ContainerHealth | None = None


class EngineUnavailable(Exception):
    """The engine did not answer, answered too late, or gave an answer that makes no sense."""


class EngineSlow(EngineUnavailable):
    """The engine did not answer in time."""


class Unreadable(EngineUnavailable):
    """The engine answers, but what it says of one container cannot be read."""


@dataclass(frozen=True, slots=True)
class Service:
    """One instance of a service: a port of a container, as it is to be registered.

    Clients connect to `port` at `address`. `private_port` is the container's own port. Both are 0
    if the service has no port. `attrs` are the container's other ``SERVICE_*`` keys, in lower case.
    `former_addresses` are no part of the service: gliderlabs/registrator may have registered the
    same container there.
    `weights` are those of a passing service and of one with a warning, as Consul knows them.
    With `tag_override` others may change the tags. `health` is NONE unless it counts for this
    service (``-health``).
    """

    id: str
    name: str
    address: str
    port: int
    private_port: int
    protocol: str = "tcp"
    tags: tuple[str, ...] = ()
    attrs: Mapping[str, str] = field(default_factory=dict)
    container_id: str = ""
    container_name: str = ""
    container_hostname: str = ""
    health: ContainerHealth = field(default=ContainerHealth.NONE, metadata=UNRECORDED)
    weights: tuple[int, int] = field(default=(1, 1), metadata=UNRECORDED)
    tag_override: bool = field(default=False, metadata=UNRECORDED)
    former_addresses: tuple[str, ...] = field(default=(), compare=False, metadata=UNRECORDED)

    @property
    def record(self) -> dict[str, Any]:
        """The service by the names of its fields, for registries that take JSON."""
        recorded = (item.name for item in fields(self) if item.metadata != UNRECORDED)
        values = {name: getattr(self, name) for name in recorded}
        return values | {"attrs": dict(sorted(self.attrs.items()))}


class Reason(Enum):
    """Why a port of a container is not registered. The value is for the operator.

    This is the one list of all reasons: log lines, status and documents name no other.
    """

    NO_PORTS = "it has no ports"
    NOT_PUBLISHED = "it is not published"
    NOT_LISTED = "SERVICE_PORTS does not name it"
    NOT_REACHABLE = "SERVICE_PORTS names it, but it is not published"
    NO_SUCH_PORT = "SERVICE_<port>_<key> names it, and the container does not have it"
    IGNORED = "SERVICE_IGNORE is set"
    NOT_NAMED = "-explicit is given and SERVICE_NAME is not set"
    FILTERED = "the filter excludes it"
    REJECTED = "its metadata cannot be used"
    NO_ADDRESS = "no address is known for it"
    NOT_ATTACHED = "it is not attached to its network"
    SAME_ID = "another port has the same service id"
    SAME_KEY = "another service has the same place in the registry"
    OTHERS_ENTRY = "somebody else's entry stands in its place"
    REFUSED = "the registry refuses it"
    REGISTRY_AWAY = "the registry does not answer"
    RESTART_LOOP = "it restarts again and again"
    WITHDRAWN = "it is being stopped"
    PAUSED = "it is paused"
    UNHEALTHY = "its health check fails"
    STARTING = "its health check has not passed yet"
    NOT_INSPECTED = "it cannot be inspected"
    UNREADABLE = "what the engine says of it cannot be read"
    TOO_MANY = "its container has too many services"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a service is not in a registry: the reason, and a text with the particulars."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A port that is not registered, and why. `port` is None if it concerns the whole container.

    `text` has the particulars. It is empty if the reason says all.
    """

    port: Port | None
    reason: Reason
    text: str = ""

    def __str__(self) -> str:
        return self.text or self.reason.value


@dataclass(frozen=True, slots=True)
class Offer:
    """The services of a container, and each port that is left out.

    `container` has its facts, unless it was never inspected.
    """

    services: tuple[Service, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    container: Container | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every service that this host's engine runs now, by id: the desired state.

    The services are in the order in which their containers started. This host registers services
    at `addresses` only: an entry without an owner's mark at another address is never ours.
    `host_addresses` are the host's own, without those of containers: no other host has them.
    `complete` is False until every running container was inspected once. No entry counts as
    dangling before. `settled` is False in a snapshot of a portion (see `desired.inventory`): the
    registry may be added to, but nothing that stands there may be changed or removed.

    `views` has a snapshot for each filter of a registry, by the filter's text. In a view,
    `excluded` are the services that the filter excludes, by id. They do not run for that registry.
    `received` is when the events came that the snapshot reflects first, by the monotonic clock.
    """

    services: Mapping[str, Service] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    complete: bool = True
    settled: bool = True
    host_addresses: frozenset[str] = frozenset()
    excluded: Mapping[str, Service] = field(default_factory=dict)
    views: Mapping[str, "Snapshot"] = field(default_factory=dict)
    received: tuple[float, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A service as a backend would write it.

    `key` is unique in the registry. `content` is compared with a listing. If another service has
    the key, this one takes the `alternate` key, if the registry's layout gives it one. `status` is
    for a registry that tells clients the health of a service. It is compared too, unless it is
    empty: then whatever status stands is fine.
    """

    key: str
    content: str
    service: Service
    alternate: str | None = None
    status: str = ""


@dataclass(frozen=True, slots=True)
class Actual:
    """An entry as a registry holds it.

    `held` is False if the entry depends on the lease or session of another process. It has to be
    written again then. `id` and `address` are those of the service, as far as the registry tells.
    `host` is the host that a TWIN names. `status` is as in `Entry`. `facts` are for
    entries that are unmarked or UNTOLD: what the registry tells of the service, by the names of the
    fields of `Service`.
    """

    content: str
    mark: Mark = Mark.OURS
    held: bool = True
    id: str = ""
    address: str = ""
    host: str = ""
    status: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: NO_FACTS)

    @property
    def holder(self) -> str:
        """Who holds this entry, for the operator, if it is not ours."""
        if self.mark is Mark.NONE:
            return f"somebody else registered it with {self.address or 'no address'}"
        if self.mark in (Mark.TWIN, Mark.UNTOLD):
            return f"host {self.host or 'unknown'}, which has the same engine id, holds it"
        return "another owner holds it"


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes that turn a registry's actual state into the desired one.

    `conflicts` are the desired keys that somebody else holds, with the reason. They are not
    written. Backends register before they deregister, so that a renamed service has no gap.
    """

    register: tuple[Entry, ...] = ()
    deregister: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.register or self.deregister)


def unprintable(text: str) -> bool:
    """Whether text has control characters, line separators or halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)
