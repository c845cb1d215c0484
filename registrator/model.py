"""The words that all modules share: what a container is, what it offers, what a registry holds.

All of it is immutable and without behaviour beyond its own data, so that threads may share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container. `host_port` is 0 where it is exposed but not published."""

    private: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """What the agent needs to know of one container; a fraction of what inspecting it returns.

    `env` and `labels` hold the pairs that can matter (see `docker_engine`), `networks` the
    container's own address in each network, its main network first. `started_at` is in ns since
    the epoch, by the engine's clock. `exit_code` is None while the container runs.
    """

    id: str
    name: str
    image: str
    hostname: str
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network_mode: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    started_at: int = 0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A hint that a container changed. `time` is the engine's clock in nanoseconds."""

    container_id: str
    action: str
    time: int
    exit_code: int | None = None


class EngineUnavailable(Exception):
    """The engine did not answer, or not in time, or not as an engine does."""


@dataclass(frozen=True, slots=True)
class Service:
    """One instance of a service: a port of a container, as it is to be registered.

    `port` is the port that clients connect to at `address`, `private_port` the container's.
    `attrs` are the container's other ``SERVICE_*`` keys, lower-case. `former_addresses` are no part
    of it: where gliderlabs/registrator may have registered the same container, besides `address`.
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
    former_addresses: tuple[str, ...] = field(default=(), compare=False)

    @property
    def record(self) -> dict[str, Any]:
        """All of it by the names of its fields, for registries that take JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.compare}
        return values | {"attrs": dict(sorted(self.attrs.items()))}


class Reason(Enum):
    """Why a port of a container is not registered; the value is for the operator.

    The one list of all reasons: log lines, status and documents name no other.
    """

    NO_PORTS = "the container has no ports"
    NOT_PUBLISHED = "the port is not published"
    IGNORED = "SERVICE_IGNORE is set"
    NOT_NAMED = "-explicit is given and SERVICE_NAME is not set"
    REJECTED = "its metadata cannot be used"
    NO_ADDRESS = "no address is known for it"
    SAME_ID = "another container has the same service id"
    SAME_KEY = "another service has the same place in the registry"
    OTHERS_ENTRY = "somebody else's entry stands in its place"
    REFUSED = "the registry refuses it"
    RESTART_LOOP = "the container restarts again and again"
    NOT_INSPECTED = "the container cannot be inspected"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a service is not in a registry: the reason, and a text with the particulars."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A port that is not registered, and why; `port` is None where it concerns the container."""

    port: Port | None
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a container offers: its services, and each port that is left out."""

    services: tuple[Service, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every service that this host's engine runs now, by id: the desired state.

    In the order in which their containers were started. `addresses` are those that this host
    registers services with; an entry without an owner's mark is never ours at any other address.
    `complete` is False while a running container could not be inspected even once: nothing may
    be taken for dangling then. `settled` is False while more containers are being looked at, which
    may claim the same ids and keys: what stands is not to be changed yet, only added to.
    """

    services: Mapping[str, Service] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    complete: bool = True
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are in the registries.

    `owner` is the Docker engine's id, since hostnames repeat across cloned machines; `hostname`
    is the first part of service ids.
    """

    owner: str
    hostname: str


class Mark(Enum):
    """Whose an entry is, by what the registry itself says of it."""

    OURS = "ours"
    OTHERS = "another owner's"
    NONE = "unmarked"


@dataclass(frozen=True, slots=True)
class Entry:
    """A service as a backend would write it.

    `key` is unique in the registry, `content` is what is compared with a listing. A service whose
    key another one has takes `alternate`, where the registry's layout gives it one.
    """

    key: str
    content: str
    service: Service
    alternate: str | None = None


@dataclass(frozen=True, slots=True)
class Actual:
    """An entry as a registry holds it.

    `held` is False where it would not live on with this process (its lease or session is
    another's), so that it has to be written again. `id` and `address` are the service's,
    as far as the registry tells.
    """

    content: str
    mark: Mark = Mark.OURS
    held: bool = True
    id: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes that turn a registry's actual state into the desired one.

    `conflicts` are the desired keys that somebody else holds, with the reason; they are not
    written. Backends register before they deregister, so that a renamed service has no gap.
    """

    register: tuple[Entry, ...] = ()
    deregister: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.register or self.deregister)
