"""The Consul KV backend on real servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.consul import ACL, backend, freeze, put, register, service, token, with_tls
from support.servers import Consul, consul_cluster
from support.wait import until

from registrator.backend import Backend, ConfigError, Rejected, SessionLost, Unavailable
from registrator.model import Mark, Plan

NUMBERS = count()

Make = Callable[..., Backend]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("consul"))
    consul.config["addresses"] = {"http": f"{consul.ip} unix://{consul.folder}/sock"}
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def prefix() -> str:
    return f"test{next(NUMBERS)}/services"


@pytest.fixture
def make(consul: Consul, prefix: str) -> Iterator[Make]:
    """Makes backends at the test's own prefix. Options of the URI by `query`."""
    made: list[Backend] = []

    def create(owner: str = "us", query: str = "", **context: Any) -> Backend:
        made.append(backend(f"consulkv://{consul.address}/{prefix}{query}", owner, **context))
        return made[-1]

    yield create
    for each in made:
        each.close()


def rows(consul: Consul, prefix: str) -> dict[str, dict[str, Any]]:
    """Every key under the prefix, as a reader sees it, with its value decoded."""
    try:
        found = consul.api(f"kv/{prefix}/?recurse")
    except OSError:
        return {}
    return {
        row["Key"]: row | {"Value": base64.b64decode(row["Value"] or "").decode()} for row in found
    }


def contents(ours: Backend) -> dict[str, str]:
    return {key: actual.content for key, actual in ours.list().items()}


def test_layout(make: Make, consul: Consul, prefix: str) -> None:
    register(make(), service(1), service(2, address="fd00::1"))
    values = {key: row["Value"] for key, row in rows(consul, prefix).items()}
    assert values == {
        f"{prefix}/web1/host:c1:80": "127.9.0.1:20001",
        f"{prefix}/web2/host:c2:80": "[fd00::1]:20002",
    }


def test_json(make: Make, consul: Consul, prefix: str) -> None:
    ours = make(query="?value=json")
    entry = register(ours, service(1, {"region": "eu"}))[0]
    document = json.loads(rows(consul, prefix)[entry.key]["Value"])
    assert (document["owner"], document["host_name"]) == ("us", "host")
    assert document["attrs"] == {"region": "eu"}
    assert (document["address"], document["port"], document["tags"]) == (
        "127.9.0.1", 20001, ["b", "a"],
    )  # fmt: skip
    found = ours.list()[entry.key]
    assert (found.content, found.address, found.id) == (entry.content, "127.9.0.1", "host:c1:80")


@pytest.mark.parametrize("ttl", [0, 10])
def test_what_is_written_is_listed(make: Make, ttl: float) -> None:
    ours = make(ttl=ttl, ttl_refresh=ttl / 2)
    names = ["日本", "a/b", "ü ?#%2F&=+", "x;y\\"]
    entries = register(ours, *(service(i, name=name, id=name) for i, name in enumerate(names)))
    entries += register(ours, *(service(i) for i in range(10, 300)))
    assert ours.apply(Plan(register=tuple(entries))) == {}
    found = ours.list()
    assert contents(ours) == {entry.key: entry.content for entry in entries}
    # Without a session, nothing but the form of an id tells the host.
    told = {actual.mark for actual in found.values() if ttl or actual.id.startswith("host:")}
    assert (told, {actual.held for actual in found.values()}) == ({Mark.OURS}, {True})
    ours.keepalive()
    keys = tuple(found)
    assert ours.apply(Plan(deregister=keys)) == {}
    assert ours.apply(Plan(deregister=keys)) == {}
    assert ours.list() == {}


def test_the_whole_store(consul: Consul) -> None:
    ours = backend(f"consulkv://{consul.address}")
    entry = register(ours, service(1, name="whole"))[0]
    assert entry.key == "whole/host:c1:80"
    assert ours.list()[entry.key].mark is Mark.OURS
    ours.apply(Plan(deregister=(entry.key,)))
    ours.close()


@pytest.mark.parametrize(
    "wrong", ["", "..", "a/../b", "a//b", "/a", "a/", "x\0", "x\n", "n" * 5000]
)
def test_nothing_outside_the_prefix(make: Make, wrong: str) -> None:
    ours = make()
    with pytest.raises(Rejected):
        ours.entry(service(name=wrong))
    with pytest.raises(Rejected):
        ours.entry(service(id=wrong))


def test_a_huge_value_is_rejected_and_large_ones_share_transactions(make: Make) -> None:
    ours = make(query="?value=json")
    with pytest.raises(Rejected, match="bytes"):
        ours.entry(service(1, {"x": "y" * 300_000}))
    entries = register(ours, *(service(i, {"x": "é" * 20_000}) for i in range(70)))
    assert contents(ours) == {entry.key: entry.content for entry in entries}


@pytest.mark.parametrize("ttl", [0, 10])
def test_two_owners(make: Make, consul: Consul, prefix: str, ttl: float) -> None:
    """Neither writes over the other's keys nor removes them, whether it saw them or not."""
    ours, theirs = make("us", ttl=ttl, ttl_refresh=ttl / 2), make("them")
    blind = make("us", ttl=ttl, ttl_refresh=ttl / 2)
    mine = register(ours, service(1))[0]
    other = register(theirs, service(2))[0]
    plain = f"{prefix}/plain/host:x:80"
    put(consul, f"kv/{plain}")
    listed = ours.list([other.key, plain])
    marks = {key.rpartition("/")[2]: actual.mark for key, actual in listed.items()}
    assert marks == {
        "host:c1:80": Mark.OURS, "host:c2:80": Mark.OTHERS, "host:x:80": Mark.NONE,
    }  # fmt: skip
    before = rows(consul, prefix)
    for each in (ours, blind):
        plan = Plan(register=(ours.entry(service(2, port=9)), mine))
        assert each.apply(plan) == {other.key: "another owner holds it"}
        assert each.apply(Plan(deregister=(other.key,))) == {}
    after = rows(consul, prefix)
    for key in before:
        if key != mine.key:
            assert after[key] == before[key]


def test_a_successor_takes_over_without_a_gap(make: Make, consul: Consul, prefix: str) -> None:
    first = make(ttl=10, ttl_refresh=5)
    entries = register(first, *(service(i) for i in range(100)))
    first.close()
    former = rows(consul, prefix)[entries[0].key]
    second = make(ttl=10, ttl_refresh=5)
    assert {actual.held for actual in second.list().values()} == {False}
    register(second, *(entry.service for entry in entries))
    put(consul, f"session/destroy/{former['Session']}")
    now = rows(consul, prefix)
    assert len(now) == 100
    assert now[entries[0].key]["CreateIndex"] == former["CreateIndex"]
    assert {actual.held for actual in second.list().values()} == {True}
    for_ever = make()
    assert {actual.held for actual in for_ever.list().values()} == {False}
    register(for_ever, *(entry.service for entry in entries))
    put(consul, f"session/destroy/{now[entries[0].key]['Session']}")
    assert {actual.held for actual in for_ever.list().values()} == {True}


def test_a_lost_session(make: Make, consul: Consul, prefix: str) -> None:
    ours = make(ttl=10, ttl_refresh=1)
    for notice in ("keepalive", "apply"):
        entry = register(ours, service(1))[0]
        put(consul, f"session/destroy/{rows(consul, prefix)[entry.key]['Session']}")
        assert rows(consul, prefix) == {}
        with pytest.raises(SessionLost):
            ours.keepalive() if notice == "keepalive" else register(ours, service(2))
        assert ours.list() == {}


def test_the_session_hangs_on_nothing_but_its_ttl(make: Make, consul: Consul, prefix: str) -> None:
    register(make(ttl=10, ttl_refresh=5), service(1))
    session = next(iter(rows(consul, prefix).values()))["Session"]
    facts = consul.api(f"session/info/{session}")[0]
    assert (facts["Behavior"], facts["TTL"], facts["LockDelay"]) == ("delete", "10s", 0)
    assert facts["NodeChecks"] == []


@pytest.mark.parametrize("ttl", [0, 10])
def test_a_thousand_from_nothing(make: Make, ttl: float) -> None:
    ours = make(ttl=ttl, ttl_refresh=ttl / 2)
    ours.list()
    entries = tuple(ours.entry(service(i)) for i in range(1000))
    assert ours.apply(Plan(register=entries)) == {}
    assert len(ours.list()) == 1000


@pytest.mark.parametrize(
    ("uri", "context"),
    [
        ("consulkv://a/x?value=xml", {}),
        ("consulkv://a/x?dc=", {}),
        ("consulkv://a/x?dc=a%20b", {}),
        ("consulkv://a/x/../y", {}),
        ("consulkv://a/x", {"ttl": 9, "ttl_refresh": 3}),
        ("consulkv://a/x", {"ttl": 86401, "ttl_refresh": 3}),
        ("consulkv-unix://", {}),
    ],
)
def test_mistakes_are_found_at_start(uri: str, context: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        backend(uri, **context)


def test_unix_socket(consul: Consul, prefix: str) -> None:
    ours = backend(f"consulkv-unix://{consul.folder}/sock:/{prefix}")
    entry = register(ours, service(1))[0]
    assert entry.key == f"{prefix}/web1/host:c1:80"
    assert entry.key in rows(consul, prefix)
    ours.close()


def test_tls(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (consul, environ):
        ours = backend(f"consulkv-tls://{consul.tls_address}/services", environ=environ)
        entry = register(ours, service(1))[0]
        assert contents(ours) == {entry.key: entry.content}
        ours.close()


def test_acl_rules(tmp_path: Path) -> None:
    consul = Consul(tmp_path, config=ACL)
    consul.start()
    keys = 'key_prefix "services/" { policy = "write" }'
    keys += ' key_prefix ".registrator/services/" { policy = "write" }'
    sessions = 'session_prefix "" { policy = "write" }'
    secret = token(consul, keys)
    ours = backend(f"consulkv://{secret}@{consul.address}/services")
    register(ours, service(1), service(2))
    elsewhere = backend(f"consulkv://{secret}@{consul.address}/elsewhere")
    rejected = elsewhere.apply(Plan(register=(elsewhere.entry(service(1)),)))
    assert 'key_prefix "elsewhere/"' in next(iter(rejected.values()))
    with_ttl = backend(f"consulkv://{secret}@{consul.address}/services", ttl=10, ttl_refresh=5)
    with pytest.raises(Unavailable, match="session_prefix"):
        register(with_ttl, service(3))
    both = token(consul, f"{keys}\n{sessions}")
    full = backend(f"consulkv://{both}@{consul.address}/services", ttl=10, ttl_refresh=5)
    register(full, service(3))
    full.keepalive()
    assert len(full.list()) == 3
    # After a restart the name of the former session has to be read.
    again = backend(f"consulkv://{both}@{consul.address}/services", ttl=10, ttl_refresh=5)
    assert {actual.mark for actual in again.list().values()} == {Mark.OURS}
    register(again, service(3))
    for each in (ours, elsewhere, with_ttl, full, again):
        each.close()
    consul.kill()


@pytest.mark.parametrize("frozen", [True, False])
def test_failover_keeps_keys_and_session(tmp_path: Path, frozen: bool) -> None:
    """A frozen follower and a dead leader: neither loses a key."""
    servers, _ = consul_cluster(tmp_path, 3)
    servers.sort(key=leads, reverse=not frozen)
    addresses = ",".join(server.address for server in servers)
    ours = backend(f"consulkv://{addresses}/services", ttl=60, ttl_refresh=20, timeout=2)
    register(ours, service(1))
    if frozen:
        freeze(servers[0])
    else:
        servers[0].kill()
    until(lambda: register(ours, service(2)), "the next write", ignore=(Unavailable,))
    ours.keepalive()
    assert {key.rpartition("/")[2]: actual.held for key, actual in ours.list().items()} == {
        "host:c1:80": True, "host:c2:80": True,
    }  # fmt: skip
    ours.close()
    for server in servers:
        server.kill()


def test_a_move_after_a_drop_has_the_keys_listed(tmp_path: Path) -> None:
    """As where the whole cluster was restarted and lost its data."""
    servers = [Consul(tmp_path / name) for name in "ab"]
    for server in servers:
        server.start()
    woken: list[str] = []
    addresses = ",".join(server.address for server in servers)
    uri = f"consulkv://{addresses}/services"
    ours = backend(uri, wake_soon=lambda: woken.append("soon"))
    register(ours, service(1))
    ours.keepalive()
    assert woken == []
    servers[0].kill()
    for _ in range(3):
        ours.keepalive()
    assert (woken, ours.list()) == (["soon"], {})
    ours.close()
    servers[1].kill()


def leads(server: Consul) -> bool:
    leader: str = server.api("status/leader")
    return leader == f"{server.ip}:{server.ports['server']}"


def test_a_frozen_server_alone(tmp_path: Path) -> None:
    consul = Consul(tmp_path)
    consul.start()
    woken: list[str] = []
    uri = f"consulkv://{consul.address}/services"
    ours = backend(uri, timeout=0.5, wake_soon=lambda: woken.append("soon"))
    services = [service(i) for i in range(100)]
    # So short a limit also ends calls at a busy machine.
    until(lambda: register(ours, *services), "the keys", ignore=(Unavailable,))
    freeze(consul)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"within 0\.5 s"):
            ours.list()
    consul.thaw()
    until(lambda: len(ours.list()) == 100, "the thawed server", ignore=(Unavailable,))
    ours.keepalive()
    woken.clear()
    consul.restart()
    for _ in range(2):
        ours.keepalive()
        assert woken == ["soon"], "it may have restarted with less than it had"
    until(lambda: len(ours.list()) == 100, "the restarted server", ignore=(Unavailable,))
    consul.kill()
    ours.keepalive()
    assert woken == ["soon", "soon"]
    with pytest.raises(Unavailable, match="refused"):
        ours.list()
    ours.close()
