"""A kind of registry as the suite needs it: backends for it, and a look at it from outside."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from support.servers import Server

from registrator.backend import Backend, Context, Rejected, load
from registrator.model import Actual, Entry, Identity, Mark, Plan, Service
from registrator.sync.plan import Here, by_key, diff
from registrator.uri import Address, parse

OWNER, OTHER = "engine-1", "engine-2"
# Seconds for an answer where no server is frozen: the machine may be busy.
PATIENT = 60.0
# Both owners have one hostname, as cloned machines do: only the marks tell them apart.
HOST = "host"
ADDRESSES = frozenset({"10.0.0.1", "10.0.0.2", "fd00::1"})
HERE = Here(HOST, ADDRESSES, ADDRESSES)


def service(number: int = 0, name: str = "web", **changes: Any) -> Service:
    """A service of this host. `number` tells it from others."""
    made = Service(
        id=f"{HOST}:c{number}:80",
        name=name,
        address="10.0.0.1",
        port=1000 + number,
        private_port=80,
        container_id=f"{number:064x}",
        container_name=f"c{number}",
        container_hostname=f"{number:012x}",
    )
    return dataclasses.replace(made, **changes)


def shown(service: Service) -> str:
    """Address and port as `Registry.read` gives them."""
    return str(Address(service.address, service.port))


class Round(NamedTuple):
    """The writes of one round, and the refusals: by the backend by id, by the registry by key."""

    plan: Plan
    rejected: Mapping[str, str]


def reconcile(backend: Backend, *services: Service) -> Round:
    """One round as the reconciler does it: list, diff, apply."""
    entries: list[Entry] = []
    rejected: dict[str, str] = {}
    for each in services:
        try:
            entries.append(backend.entry(each))
        except Rejected as error:
            rejected[each.id] = str(error)
    desired, _ = by_key(entries)
    plan = diff(desired, backend.list(desired), HERE, dangling=lambda _: True)
    return Round(plan, rejected | dict(backend.apply(plan) if plan else {}))


def ours(backend: Backend) -> dict[str, Actual]:
    """This host's own entries by what the backend says."""
    listed = backend.list().items()
    return {key: found for key, found in listed if HERE.mark(found) is Mark.OURS}


class Registry(ABC):
    """A kind of registry, with a place in it that is this test's own.

    `leased` is what the context needs for entries to hang on a lease or session. `guarded` says
    whether the registry itself keeps one owner from writing over another's entry. `rewrites` says
    whether a successor has to write to take entries over.
    """

    leased: Mapping[str, float] = {"ttl": 60, "ttl_refresh": 20}
    guarded = True
    rewrites = False
    server: Server | None = None
    # For 1,000 entries: writes to register them, and requests to list them, at most.
    most_writes = most_reads = 0
    # Listings until an owner's entries are found although its TTL is another one now, and none of
    # its services runs any more.
    listings = 1
    # Requests that keep any number of entries alive.
    keepalive_requests = 1

    def __init__(self) -> None:
        self.token = uuid4().hex[:12]
        self.environ: Mapping[str, str] = {}
        self._made: list[Backend] = []

    @abstractmethod
    def uri(self, *before: str) -> str:
        """A URI of this place, at the server's address with these addresses before it."""

    def make(self, owner: str = OWNER, /, *before: str, **context: Any) -> Backend:
        """A backend, as the core makes it. It is closed with the test."""
        parsed = parse(self.uri(*before))
        identity = Identity(owner, HOST)
        context.setdefault("timeout", PATIENT)
        made = load(parsed.scheme)(Context(parsed, identity, environ=self.environ, **context))
        self._made.append(made)
        return made

    @abstractmethod
    def read(self) -> dict[str, str]:
        """Address and port of all that stands in this place, whoever wrote it, by key."""

    @abstractmethod
    def plant(self) -> None:
        """Put things of others next to this place, as like ours as they can be."""

    @abstractmethod
    def outside(self) -> object:
        """All that is in the registry outside this place, with its versions."""

    @abstractmethod
    def index(self) -> int:
        """The registry's own count of changes."""

    def requests(self) -> int:
        """How many requests the server has had."""
        raise NotImplementedError

    def writes(self) -> int:
        """How many requests the server has had that may write."""
        return self.requests()

    def end_session(self, backend: Backend) -> None:
        """End the backend's lease or session as its server would, with what hangs on it."""
        raise NotImplementedError

    def clean(self) -> None:
        """Remove the place and what was planted."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the backends and remove what they wrote."""
        if self.server is not None and self.server.running:
            self.server.thaw()
        for backend in self._made:
            backend.close()
        self.clean()
