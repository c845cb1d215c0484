"""Compares a registry with what this host runs, as the agent would, and writes nothing.

A `Reader` has no method that writes, so no command that only looks can write by mistake.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from registrator.backend import Context, SessionLost, listing
from registrator.model import Actual, Entry, Identity, Mark, Plan, Problem, Service, Snapshot
from registrator.registries import make_backend
from registrator.sync.by_health import ByHealth
from registrator.sync.plan import Here, by_key, diff, entries
from registrator.sync.problems import problems


class Reader:
    """One registry, to look at. `server` is the one in use, once there was a listing."""

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` if the URI or the environment is wrong. Opens no connection."""
        self.server = ""
        backend = make_backend(replace(context, read_only=True, serves=self._serves))
        self._entry, self._list = backend.entry, partial(listing, backend)
        self.shows_health = bool(getattr(backend, "shows_health", False))
        self.close = backend.close

    def _serves(self, server: str) -> None:
        self.server = server

    def entry(self, service: Service) -> Entry:
        """The service as the registry would have it. Raises `Rejected`."""
        return self._entry(service)

    def list(self, keys: Collection[str]) -> Mapping[str, Actual]:
        """This owner's entries, and what stands at `keys`. Raises `BackendError`.

        Whether this process holds an entry says nothing here: the agent that runs holds it.
        """
        try:
            found = self._list(keys)
        except SessionLost:  # It moved to another server, and that is no fault here.
            found = self._list(keys)
        return {key: replace(actual, held=True) for key, actual in found.items()}


class Comparison(NamedTuple):
    """The writes of an agent, and the entries that stand there, by key.

    `problems` says by service id why a service is not registered. `ours` is how many entries are
    this host's.
    """

    plan: Plan
    actual: Mapping[str, Actual]
    problems: Mapping[str, Problem]
    ours: int

    @property
    def missing(self) -> set[str]:
        """The ids of the services that do not stand there as they are now."""
        return {entry.service.id for entry in self.plan.register}


def compare(reader: Reader, snapshot: Snapshot, identity: Identity, *, cleanup: bool) -> Comparison:
    """Plan as a reconciler does in its first step. Raises `BackendError`."""
    made, found = entries(snapshot, {}, reader.entry)
    desired, clashes = by_key(made.values())
    actual = dict(reader.list(desired))
    by_health = ByHealth(reader.shows_health)
    chosen = by_health.choose(desired, actual)
    here = Here(identity.hostname, snapshot.addresses, snapshot.host_addresses)
    for key in chosen.keys() & actual.keys():
        if here.claims(actual[key], chosen[key].service):
            actual[key] = replace(actual[key], mark=Mark.OURS)

    def dangling(key: str) -> bool:
        return key in by_health.withheld or (cleanup and snapshot.complete)

    plan = diff(chosen, actual, here, dangling=dangling)
    found |= by_health.problems()
    found.update(problems(chosen, clashes, plan.conflicts, {}))
    ours = sum(here.mark(each) is Mark.OURS for each in actual.values())
    return Comparison(plan, actual, found, ours)
