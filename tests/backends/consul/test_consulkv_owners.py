"""Whose a key in Consul's store is: clones, former engines, lost marks, strangers' keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from support.consul import put, register, service, set_key
from support.servers import Consul
from support.wait import DEADLINE

from registrator.backend import Backend, Context, load
from registrator.model import Identity, Mark, Plan, Service
from registrator.sync.plan import Here, diff
from registrator.uri import parse

NUMBERS = count()
OWN = "127.9.0.1"
CLONES = "127.9.0.2"
HERE = Here("host", frozenset({OWN}), frozenset({OWN}))
# What version 1.0.0 writes for the owner "us".
US = 4383930231328793437
TTL = {"ttl": 10, "ttl_refresh": 5}

Make = Callable[..., Backend]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("consul"))
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def prefix() -> str:
    return f"owners{next(NUMBERS)}"


@pytest.fixture
def make(consul: Consul, prefix: str) -> Iterator[Make]:
    """Makes the backend of a host, at the test's own prefix."""
    made: list[Backend] = []

    def create(
        host: str = "host", query: str = "", owner: str = "us", former: tuple[str, ...] = (),
        **context: Any,
    ) -> Backend:  # fmt: skip
        uri = parse(f"consulkv://{consul.address}/{prefix}{query}")
        identity = Identity(owner, host, former)
        made.append(load(uri.scheme)(Context(uri, identity, timeout=DEADLINE, **context)))
        return made[-1]

    yield create
    for each in made:
        each.close()


def plan_for(ours: Backend, *services: Service) -> Plan:
    """The core's plan for the keys that it finds."""
    desired = {entry.key: entry for entry in map(ours.entry, services)}
    return diff(desired, ours.list(desired), HERE, dangling=lambda _: True)


def rows(consul: Consul, prefix: str) -> dict[str, dict[str, Any]]:
    return {row["Key"]: row for row in consul.api(f"kv/{prefix}/?recurse")}


def theirs(number: int, **fields: Any) -> Service:
    """A service of the clone, under its hostname and at its address."""
    return service(number, id=f"clone:c{number}:80", address=CLONES, **fields)


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
@pytest.mark.parametrize("query", ["", "?value=json"])
def test_a_clone_of_the_host_is_told_apart(
    make: Make, consul: Consul, prefix: str, query: str, context: Mapping[str, float]
) -> None:
    """The clone's live keys stand, and the agent knows the clone's name."""
    clone, ours = make("clone", query, **context), make("host", query, **context)
    (entry,) = register(clone, theirs(1))
    found = ours.list()[entry.key]
    assert (found.mark, found.host) == (Mark.TWIN, "clone")
    before = rows(consul, prefix)
    assert not plan_for(ours, service(2)).deregister
    plan = plan_for(ours, theirs(1, port=9))
    assert "host clone" in plan.conflicts[entry.key]
    assert rows(consul, prefix) == before


def test_with_a_session_a_custom_id_tells_the_host(make: Make) -> None:
    """A plain value has no place for the host, and a custom id does not name it."""
    clone, ours = make("clone", **TTL), make(**TTL)
    (entry,) = register(clone, service(1, id="db", address="172.17.0.2"))
    found = ours.list()[entry.key]
    assert (found.mark, found.host) == (Mark.TWIN, "clone")
    (mine,) = register(ours, service(2, id="web", address="172.17.0.2"))
    again = make(**TTL)
    assert (again.list()[mine.key].mark, ours.list()[mine.key].mark) == (Mark.OURS, Mark.OURS)


def test_without_a_session_a_custom_id_leaves_the_host_untold(make: Make) -> None:
    clone, ours = make("clone"), make()
    entries = register(clone, service(1, id="db", address=CLONES), service(2, id="web"))
    marks = {key: found.mark for key, found in ours.list().items()}
    assert marks == dict.fromkeys((entry.key for entry in entries), Mark.UNTOLD)
    # The one at this host's address is this host's, and the other one stays.
    assert plan_for(ours).deregister == (entries[1].key,)


def test_a_host_that_was_renamed_takes_its_keys_over(make: Make, consul: Consul) -> None:
    former, ours = make("former"), make()
    register(former, service(1, id="former:c1:80"), service(2, id="former:c2:80"))
    assert ours.apply(plan_for(ours, service(1))) == {}
    assert [found.id for found in ours.list().values()] == ["host:c1:80"]


@pytest.mark.parametrize("query", ["", "?value=json"])
def test_keys_of_the_engine_that_this_host_had_before(
    make: Make, consul: Consul, prefix: str, query: str
) -> None:
    """They get the new owner, so that the option can go later."""
    former = make(query=query, owner="before")
    one, two = register(former, service(1), service(2))
    assert make(query=query).list([one.key])[one.key].mark is Mark.OTHERS
    ours = make(query=query, former=("before",))
    plan = plan_for(ours, service(1))
    assert [entry.key for entry in plan.register] == [one.key]
    assert plan.deregister == (two.key,)
    assert ours.apply(plan) == {}
    later = make(query=query)
    assert later.list()[one.key].mark is Mark.OURS
    assert not plan_for(later, service(1))


def test_a_value_of_version_1_0_0_names_no_host(make: Make, consul: Consul) -> None:
    ours = make(query="?value=json")
    (entry,) = register(ours, service(1, id="db"))
    row = rows(consul, entry.key.partition("/")[0])[entry.key]
    old = json.loads(entry.content)
    del old["host_name"]
    set_key(consul, entry.key, json.dumps(old, sort_keys=True), row["Flags"])
    assert ours.list()[entry.key].mark is Mark.UNTOLD
    plan = plan_for(ours, service(1, id="db"))
    assert (len(plan.register), plan.deregister) == (1, ())
    assert ours.apply(plan) == {}
    assert not plan_for(ours, service(1, id="db"))


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
@pytest.mark.parametrize("query", ["", "?value=json"])
def test_keys_of_version_1_0_0_are_taken_over_without_a_gap(
    make: Make, consul: Consul, prefix: str, query: str, context: Mapping[str, float]
) -> None:
    """It wrote the same flags, no host, and a session whose name tells no host."""
    services = service(1), service(2, id="db")
    ours = make(query=query, **context)
    session = {"Name": "registrator us", "Behavior": "delete", "LockDelay": "0s", "TTL": "3600s"}
    held = put(consul, "session/create", session)["ID"] if context else ""
    for each in services:
        entry = ours.entry(each)
        value = entry.content
        if query:
            value = json.dumps({k: v for k, v in json.loads(value).items() if k != "host_name"})
        set_key(consul, entry.key, value, US, held)
    created = {key: row["CreateIndex"] for key, row in rows(consul, prefix).items()}
    assert ours.apply(plan_for(ours, *services)) == {}
    assert {key: row["CreateIndex"] for key, row in rows(consul, prefix).items()} == created
    if held:
        put(consul, f"session/destroy/{held}")
    before = rows(consul, prefix)
    assert before.keys() == created.keys()
    assert {row["Flags"] for row in before.values()} == {US}
    assert not plan_for(ours, *services)
    if not context:
        assert not plan_for(make(query=query), *services)
    assert rows(consul, prefix) == before


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_key_that_lost_our_mark_is_put_right(
    make: Make, consul: Consul, listed: bool, context: Mapping[str, float]
) -> None:
    """``consul kv put`` sets the flags to 0. The value is another one, at an address not ours."""
    ours = make(**context)
    one, two = register(ours, service(1), service(2))
    for entry in (one, two):
        set_key(consul, entry.key, "127.8.8.8:1")
    if listed:
        assert ours.list()[one.key].mark is Mark.NONE
    assert ours.apply(Plan(register=(one,), deregister=(two.key,))) == {}
    found = ours.list()
    assert {key: each.content for key, each in found.items()} == {one.key: one.content}
    assert found[one.key].held


@pytest.mark.parametrize(
    ("flags", "service_id", "value"),
    [
        (1, "host:c1:80", f"{OWN}:20001"),
        (0, "host:c1:80", "127.8.8.8:20001"),
        (0, "db", f"{OWN}:7"),
    ],
)
def test_what_came_since_the_listing_is_not_touched(
    make: Make, consul: Consul, prefix: str, flags: int, service_id: str, value: str
) -> None:
    ours = make()
    assert ours.list() == {}
    one, two = ours.entry(service(1, id=service_id)), ours.entry(service(2))
    for entry in (one, two):
        set_key(consul, entry.key, value, flags)
    before = rows(consul, prefix)
    rejected = ours.apply(Plan(register=(one,), deregister=(two.key,)))
    assert list(rejected) == [one.key]
    assert ("another owner" if flags else "somebody else registered it") in rejected[one.key]
    assert rows(consul, prefix) == before


@pytest.mark.parametrize(
    ("service_id", "value"), [("host:c1:80", f"{OWN}:7"), ("db", f"{OWN}:20001")]
)
def test_what_the_original_wrote_since_the_listing_is_adopted(
    make: Make, consul: Consul, service_id: str, value: str
) -> None:
    """A container started between two listings, and both programs run while a host moves over."""
    ours = make()
    assert ours.list() == {}
    entry = ours.entry(service(1, id=service_id))
    set_key(consul, entry.key, value)
    assert ours.apply(Plan(register=(entry,))) == {}
    assert not plan_for(ours, service(1, id=service_id))


def test_a_clones_key_that_came_since_the_listing_is_not_touched(
    make: Make, consul: Consul, prefix: str
) -> None:
    ours, clone = make(query="?value=json"), make("clone", "?value=json")
    assert ours.list() == {}
    (entry,) = register(clone, service(1, id="db"))
    before = rows(consul, prefix)
    mine = ours.entry(service(1, id="db"))
    assert "host clone" in ours.apply(Plan(register=(mine,)))[mine.key]
    assert ours.apply(Plan(deregister=(entry.key,))) == {}
    assert rows(consul, prefix) == before


def test_a_strangers_key_that_changed_since_the_listing_stays(
    make: Make, consul: Consul, prefix: str
) -> None:
    """It was to be adopted, but it is another one now."""
    ours = make()
    one, two = ours.entry(service(1)), ours.entry(service(2))
    for value in (f"{OWN}:7", "127.8.8.8:1"):
        for entry in (one, two):
            set_key(consul, entry.key, value)
        if value.startswith(OWN):
            ours.list()
    before = rows(consul, prefix)
    assert list(ours.apply(Plan(register=(one,), deregister=(two.key,)))) == [one.key]
    assert rows(consul, prefix) == before


def test_unmarked_keys_are_adopted_if_the_original_wrote_them(make: Make, consul: Consul) -> None:
    """With the original's id the address is enough. A custom id needs the port as well."""
    ours = make()
    default = service(1)
    same = service(2, id="same")
    postgres = service(3, id="postgres")
    services = (default, same, postgres)
    for each, port in zip(services, (7, same.port, 5432), strict=True):
        set_key(consul, ours.entry(each).key, f"{OWN}:{port}")
    plan = plan_for(ours, *services)
    assert [entry.service for entry in plan.register] == [default, same]
    assert list(plan.conflicts) == [ours.entry(postgres).key]
    assert ours.apply(plan) == {}
    assert not plan_for(ours, *services)
    # When the containers end, the stranger's key stays.
    ours.apply(plan_for(ours))
    stranger = ours.entry(postgres).key
    found = ours.list([ours.entry(each).key for each in services])
    assert {key: each.content for key, each in found.items()} == {stranger: f"{OWN}:5432"}
