"""Any sequence of plans by two owners, restarts included, agrees with a model of a few lines."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.kinds import PLAIN, over
from contract.registry import OTHER, OWNER, Registry, ours, reconcile, service, shown
from registrator.backend import Backend
from registrator.model import Entry, Service

NAMES = ("web", "db")


class Step(NamedTuple):
    """An owner wants these services, told by number and variant, and perhaps nothing else yet."""

    owner: str
    wanted: dict[int, int]
    restarted: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from([OWNER, OTHER]),
        st.dictionaries(st.integers(0, 4), st.integers(0, 3), max_size=5),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def variant(number: int, kind: int) -> Service:
    """One service in four guises: two names, two ports, and tags of their own."""
    port = 1000 + number * 10 + kind % 2
    return service(number, NAMES[kind // 2], port=port, tags=(str(kind),))


class Model:
    """The right state: owner and entry by key. The first owner has a key until he lets go."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, Entry]] = {}

    def step(self, owner: str, entries: list[Entry]) -> None:
        wanted = {entry.key: entry for entry in entries}
        kept = {k: v for k, v in self.entries.items() if v[0] != owner}
        self.entries = {**{key: (owner, entry) for key, entry in wanted.items()}, **kept}

    def of(self, owner: str) -> dict[str, str]:
        return {k: entry.content for k, (who, entry) in self.entries.items() if who == owner}

    def shown(self) -> dict[str, str]:
        return {key: shown(entry.service) for key, (_, entry) in self.entries.items()}


def hold(registry: Registry, steps: list[Step], leased: bool) -> None:
    context = registry.leased if leased else {}
    backends: dict[str, Backend] = {}
    model = Model()
    for owner, wanted, restarted in steps:
        if restarted and owner in backends:
            backends.pop(owner).close()
        backend = backends.setdefault(owner, registry.make(owner, **context))
        services = [variant(*each) for each in wanted.items()]
        _, rejected = reconcile(backend, *services)
        assert rejected == {}
        model.step(owner, [backend.entry(each) for each in services])
        assert registry.read() == model.shown()
        listed = {key: found.content for key, found in ours(backend).items()}
        assert listed == model.of(owner)
    for backend in (registry.make(OWNER), registry.make(OTHER)):
        backends[f"{id(backend)}"] = backend
        for _ in range(registry.listings):
            reconcile(backend)
    assert registry.read() == {}
    for backend in backends.values():
        backend.close()


quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@over(("fake", "file"))
@given(steps=STEPS)
@quick
def test_without_a_server(registry: Registry, steps: list[Step]) -> None:
    hold(registry, steps, leased=False)


@over((*PLAIN, "consulkv-json", "etcd-json", "zookeeper-acl"))
@given(steps=STEPS, leased=st.booleans())
@settings(quick, max_examples=12)
def test_on_a_server(registry: Registry, steps: list[Step], leased: bool) -> None:
    hold(registry, steps, leased)
