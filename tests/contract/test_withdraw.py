"""``registrator withdraw`` at each kind of registry: this host's entries go, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from contract.kinds import PLAIN, over
from contract.registry import HOST, OTHER, OWNER, PATIENT, Registry, service, shown
from registrator.backend import Backend, Context, load
from registrator.commands import withdraw
from registrator.config import Config
from registrator.model import Identity, Plan, Service
from registrator.uri import RegistryURI, parse

KINDS = ("file", *PLAIN)

# An id of the user's own does not name its host.
OURS = (service(0), service(1, id="my-own"), service(2, "dns", id="host:c2:53:udp", protocol="udp"))


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's log would take the place of pytest's."""
    monkeypatch.setattr("registrator.system.log.on_stderr", lambda *_: contextlib.nullcontext())


def place(registry: Registry) -> RegistryURI:
    """The registry's URI. Nodes of a closed backend stand for a minute in ZooKeeper."""
    zookeeper = registry.uri().startswith("zookeeper")
    options = f"timeout={PATIENT:g}{'&session-timeout=60' if zookeeper else ''}"
    return parse(f"{registry.uri()}?{options}")


@contextlib.contextmanager
def agent(
    registry: Registry, owner: str = OWNER, host: str = HOST, **context: Any
) -> Iterator[Backend]:
    uri = place(registry)
    made = load(uri.scheme)(Context(uri, Identity(owner, host), timeout=PATIENT, **context))
    try:
        yield made
    finally:
        made.close()


def register(backend: Backend, *services: Service) -> dict[str, str]:
    """Register services. Returns their places: address and port by key."""
    entries = [backend.entry(each) for each in services]
    backend.list([entry.key for entry in entries])
    assert backend.apply(Plan(tuple(entries))) == {}
    return {entry.key: shown(entry.service) for entry in entries}


def run(registry: Registry, *, yes: bool = False, **life: Any) -> int:
    config = Config((place(registry),), ip="10.0.0.1", hostname=HOST, **life)
    return withdraw.run(config, owner=OWNER, yes=yes)


@over(KINDS)
@pytest.mark.parametrize("leased", [False, True])
def test_this_hosts_entries_go_and_no_others(
    registry: Registry, leased: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    life: Mapping[str, Any] = registry.leased if leased else {}
    registry.plant()
    outside = registry.outside()
    with agent(registry, **life) as mine:
        ours = register(mine, *OURS)
        if leased:
            mine.keepalive()
    with agent(registry, OTHER) as other:
        others = register(other, service(5, address="10.0.0.2"))
    # Its address is one that this host has, too. But its entry names another host.
    with agent(registry, host="clone") as clone:
        others |= register(clone, service(6, id="clone:c6:80"))
    assert registry.read() == ours | others

    assert run(registry, **life) == 1
    told = capsys.readouterr().out.splitlines()
    extra = len(told) - 1 - len(ours)
    assert extra == (leased and registry.uri().startswith("consul://")), "the owner's own service"
    assert all(any(line.endswith(f": {key}") for line in told) for key in ours)
    assert told[-1].endswith(f"entries of {OWNER}: add -yes to remove them")
    assert registry.read() == ours | others, "it only shows them"

    assert run(registry, yes=True, **life) == 0
    told = capsys.readouterr().out.splitlines()
    assert all(f"{place(registry)}: removed {key}" in told for key in ours)
    number = len(ours) + extra
    assert told[-1] == f"{number} entries found, {number} removed, 0 left"
    assert registry.read() == others
    assert registry.outside() == outside

    assert run(registry, yes=True, **life) == 0
    assert capsys.readouterr().out == "0 entries found, 0 removed, 0 left\n"


@over(KINDS)
def test_a_registry_that_does_not_answer(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are done all the same."""
    monkeypatch.setattr(withdraw, "PAUSE", 0)
    with agent(registry) as mine:
        ours = register(mine, *OURS)
    dead = parse("consulkv://127.99.99.99:1/x")
    config = Config((dead, place(registry)), ip="10.0.0.1", hostname=HOST)
    assert withdraw.run(config, owner=OWNER, yes=True) == 3
    out, err = capsys.readouterr()
    assert "consulkv://127.99.99.99:1/x: " in err
    assert out.endswith(f"{len(ours)} entries found, {len(ours)} removed, 0 left\n")
    assert registry.read() == {}


@over(("consul",))
def test_each_address_of_a_consul_uri_has_entries_of_its_own(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdraw, "PAUSE", 0)
    with agent(registry) as mine:
        register(mine, *OURS)
    config = Config((parse(registry.uri("127.99.99.99:1")),), hostname=HOST)
    assert withdraw.run(config, owner=OWNER, yes=True) == 3
    assert "consul://127.99.99.99:1: " in capsys.readouterr().err
    assert registry.read() == {}


@over(("consulkv",))
def test_an_entry_that_names_no_host_stays(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain value has no place for the host, and a clone may have the same id in its engine."""
    with agent(registry) as mine:
        ours = register(mine, service(1, id="my-own"))
    config = Config((place(registry),), hostname=HOST)
    assert withdraw.run(config, owner=OWNER, yes=True) == 0
    assert "1 entries of this engine name no host" in capsys.readouterr().err
    assert registry.read() == ours
    assert run(registry, yes=True) == 0, "its address tells"
    assert registry.read() == {}


@over(("fake",))
def test_what_is_refused_is_told(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = registry.make()
    register(backend, service(0), service(1))
    apply = backend.apply

    def refuse(plan: Plan) -> dict[str, str]:
        first, *rest = plan.deregister
        apply(Plan(deregister=tuple(rest)))
        return {first: "no right"}

    monkeypatch.setattr(backend, "apply", refuse)
    monkeypatch.setattr(withdraw, "make_backend", lambda _: backend)
    config = Config((parse("fake://"),), hostname=HOST)
    assert withdraw.run(config, owner=OWNER, yes=True) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "fake://: removed host:c1:80", "2 entries found, 1 removed, 1 left",
    ]  # fmt: skip
    assert err.splitlines() == ["registrator: fake://: not removed host:c0:80: no right"]
