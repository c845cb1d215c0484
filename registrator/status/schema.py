"""The types of ``/api/state``. The docstring of `registrator.status.state` explains each field."""

from typing import TypedDict

from registrator.status.outcomes import Outcome


class Addresses(TypedDict):
    """At which addresses services are registered."""

    policy: str
    address: str
    text: str


class Agent(TypedDict):
    """Who tells all this."""

    hostname: str
    version: str
    started: float | None
    addresses: Addresses


class Summary(TypedDict):
    """The whole in a sentence and a few numbers."""

    verdict: str
    well: bool
    attention: int
    containers: int
    services: int
    ports: dict[str, int]


class EngineState(TypedDict):
    """The Docker engine."""

    state: str
    address: str
    version: str
    since: float | None
    error: str
    failures: int
    next_attempt: float | None


class Counts(TypedDict):
    """How many services of a registry are in which state."""

    registered: int
    pending: int
    refused: int
    conflicts: int


class RegistryState(TypedDict):
    """One registry."""

    name: str
    state: str
    server: str
    since: float | None
    outage_since: float | None
    error: str
    failures: int
    next_attempt: float | None
    last_listing: float | None
    counts: Counts


class ServiceState(TypedDict):
    """A service as it is to be registered."""

    id: str
    name: str
    address: str
    port: int
    tags: list[str]


class Standing(TypedDict):
    """One service in one registry."""

    state: str
    why: str


class PortState(TypedDict):
    """One port of a container, or what concerns the whole container."""

    port: int | None
    protocol: str | None
    outcome: str
    why: str
    service: ServiceState | None
    registries: list[Standing]


class Group(TypedDict):
    """One container."""

    id: str
    name: str
    image: str
    started: float | None
    ports: list[PortState]


class Head(TypedDict):
    """All but the containers."""

    schema: int
    agent: Agent
    summary: Summary
    outcomes: dict[str, Outcome]
    engine: EngineState
    registries: list[RegistryState]


class State(Head):
    """The whole state."""

    containers: list[Group]
