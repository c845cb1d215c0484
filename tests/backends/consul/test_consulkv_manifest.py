"""The manifest in Consul's store: a host's keys are found by it, whatever happened to it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import pytest
from support.consul import ACL, MASTER, backend, put, register, service, set_key
from support.proxy import RecordingHTTPProxy, Request
from support.servers import Consul
from support.wait import DEADLINE, until

from registrator.backend import Backend, Rejected, Unavailable
from registrator.model import Identity, Mark, Plan, Service
from registrator.sync.plan import Here, diff

NUMBERS = count()
OWN = "127.9.0.1"
HERE = Here("host", frozenset({OWN}), frozenset({OWN}))
TTL = {"ttl": 10, "ttl_refresh": 5}
LISTINGS = ("recurse", "keys")

Make = Callable[..., Backend]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("consul"))
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def proxy(consul: Consul) -> Iterator[RecordingHTTPProxy]:
    proxy = RecordingHTTPProxy(consul.address)
    yield proxy
    proxy.close()


@pytest.fixture
def prefix() -> str:
    return f"named{next(NUMBERS)}"


@pytest.fixture
def make(proxy: RecordingHTTPProxy, prefix: str) -> Iterator[Make]:
    """Makes backends at the test's own prefix."""
    made: list[Backend] = []

    def create(owner: str | Identity = "us", query: str = "", **context: Any) -> Backend:
        made.append(backend(f"consulkv://{proxy.address}/{prefix}{query}", owner, **context))
        return made[-1]

    yield create
    for each in made:
        each.close()


def settle(ours: Backend, *services: Service) -> Plan:
    """One round as the reconciler does it. Returns what it wrote."""
    desired = {entry.key: entry for entry in map(ours.entry, services)}
    plan = diff(desired, ours.list(desired), HERE, dangling=lambda _: True)
    assert ours.apply(plan) == {}
    return plan


def rows(consul: Consul, prefix: str) -> dict[str, dict[str, Any]]:
    try:
        return {row["Key"]: row for row in consul.api(f"kv/{prefix}?recurse")}
    except OSError:
        return {}


def manifests(consul: Consul, prefix: str) -> dict[str, str]:
    """The values of all parts."""
    found = rows(consul, f".registrator/{prefix}/")
    return {key: base64.b64decode(row["Value"] or "").decode() for key, row in found.items()}


def named(consul: Consul, prefix: str) -> set[str]:
    """The keys that the parts name."""
    parts = [text for key, text in manifests(consul, prefix).items() if key[-1].isdigit()]
    return {f"{prefix}/{key}" for part in parts for key in json.loads(part)["keys"]}


def listings(proxy: RecordingHTTPProxy) -> list[str]:
    """The requests that read keys of all hosts. Forgets all requests."""
    found = [each.path for each in proxy.requests if any(map(each.path.__contains__, LISTINGS))]
    proxy.requests.clear()
    return found


def remove(consul: Consul, path: str) -> None:
    put(consul, f"kv/{path}", method="DELETE")


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
def test_what_ended_while_no_agent_ran_goes_at_once(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy, context: Mapping[str, float]
) -> None:
    """Under a name that still runs here, under names that do not, and with the user's ids."""
    killed = make(**context)
    stays, *ended = register(
        killed, service(1), service(51), service(2), service(3, id="db"), service(4, name="a/b")
    )
    proxy.requests.clear()
    plan = settle(make(**context), service(1))
    assert sorted(plan.deregister) == sorted(entry.key for entry in ended)
    assert rows(consul, f"{prefix}/").keys() == {stays.key}
    assert listings(proxy) == []


@pytest.mark.parametrize("former", [{}, TTL], ids=["without-ttl", "ttl"])
def test_a_former_ttl(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy, former: Mapping[str, float]
) -> None:
    """The option comes or goes: what runs is taken over, and what ended goes."""
    present = {} if former else TTL
    stays, ended = register(make(**former), service(1), service(2, id="db"))
    (session,) = {row.get("Session") for row in rows(consul, f"{prefix}/").values()}
    proxy.requests.clear()
    ours = make(**present)
    plan = settle(ours, service(1))
    assert [entry.key for entry in plan.register] == [stays.key]
    assert plan.deregister == (ended.key,)
    if session:
        put(consul, f"session/destroy/{session}")
    assert rows(consul, f"{prefix}/").keys() == {stays.key}
    assert not settle(ours, service(1))
    assert listings(proxy) == []


def test_after_the_session_of_a_predecessor_the_manifest_stands(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy
) -> None:
    (entry,) = register(make(**TTL), service(1))
    put(consul, f"session/destroy/{rows(consul, entry.key)[entry.key]['Session']}")
    assert named(consul, prefix) == {entry.key}
    proxy.requests.clear()
    ours = make(**TTL)
    assert ours.list() == {}
    assert [each.key for each in settle(ours, service(1)).register] == [entry.key]
    assert listings(proxy) == []


def test_a_host_without_a_manifest_lists_all_keys_once(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy
) -> None:
    """As after version 1.0.0, whose keys are found even under names that no longer run here."""
    stays, ended = register(make(), service(1), service(2, id="db"))
    remove(consul, f".registrator/{prefix}/?recurse")
    set_key(consul, f"{prefix}/web9/other:c9:80", "127.8.8.8:9", flags=9)
    set_key(consul, f"{prefix}/web9/host:original:80", f"{OWN}:9")
    proxy.requests.clear()
    ours = make()
    plan = settle(ours, service(1))
    assert sorted(plan.deregister) == sorted([ended.key, f"{prefix}/web9/host:original:80"])
    assert rows(consul, f"{prefix}/").keys() == {stays.key, f"{prefix}/web9/other:c9:80"}
    assert len(listings(proxy)) == 1
    assert not settle(ours, service(1))
    assert not settle(make(), service(1))
    assert listings(proxy) == []
    assert named(consul, prefix) >= {stays.key}


def test_an_agent_writes_a_manifest_again_that_somebody_removed(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy
) -> None:
    ours = make()
    services = [service(n) for n in range(300)]
    settle(ours, *services)
    before = manifests(consul, prefix)
    assert len(before) > 1
    for path in (f".registrator/{prefix}/?recurse", next(iter(before))):
        remove(consul, path)
        proxy.requests.clear()
        assert not settle(ours, *services)
        assert named(consul, prefix) == rows(consul, f"{prefix}/").keys()
        assert not settle(make(), *services)
        assert listings(proxy) == []


UNREADABLE = [
    "", "x", "{", "[]", "null", "{}", '{"keys": null}', '{"keys": "web"}', '{"keys": [5]}',
    '{"keys": [""]}', '{"keys": ["a\\u0000b"]}', '{"keys": ["\\ud800"]}', "[" * 100_000,
    '{"keys": ["' + "x" * 300_000 + '"]}', json.dumps({"keys": [f"a/{n}" for n in range(30_000)]}),
]  # fmt: skip


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("garbage", UNREADABLE, ids=count())
def test_a_manifest_that_cannot_be_read(
    make: Make, consul: Consul, prefix: str, garbage: str, running: bool
) -> None:
    """It is written again, and nothing of ours is forgotten."""
    ours = make()
    stays, ended = register(ours, service(1), service(2, id="db"))
    ours.list()
    (part,) = manifests(consul, prefix)
    set_key(consul, part, garbage)
    if running:
        assert not settle(ours, service(1), service(2, id="db"))
        assert named(consul, prefix) == {stays.key, ended.key}
    else:
        set_key(consul, f"{part[:-1]}7", garbage)
    assert settle(make(), service(1)).deregister == (ended.key,)
    assert rows(consul, f"{prefix}/").keys() == {stays.key}
    assert named(consul, prefix) >= {stays.key}


@pytest.mark.parametrize("context", [{}, TTL], ids=["", "ttl"])
def test_what_somebody_adds_to_a_manifest_is_not_touched(
    make: Make, consul: Consul, prefix: str, context: Mapping[str, float]
) -> None:
    """Keys of other owners, of nobody, and no keys at all."""
    ours = make(**context)
    (entry,) = register(ours, service(1))
    (theirs,) = register(make("them"), service(2, id="them"))
    (ours_part,) = (key for key, text in manifests(consul, prefix).items() if '"us"' in text)
    set_key(consul, f"{prefix}/web3/host:c3:80", "127.8.8.8:1")
    set_key(consul, f"{prefix}x/web", "beside")
    names = ["web2/them", "web3/host:c3:80", "../x", f"../{prefix}x/web", "/", "a", "größe/日本"]
    set_key(consul, ours_part, json.dumps({"keys": [*names, "x" * 7000]}))
    set_key(consul, f"{ours_part[:-1]}x", json.dumps({"keys": [*names, "x" * 5000]}))
    before = rows(consul, f"{prefix}/") | rows(consul, f"{prefix}x/")
    for agent in (ours, make(**context)):
        settle(agent, service(1))
        settle(agent, service(1), service(4))
        settle(agent, service(1))
        after = rows(consul, f"{prefix}/") | rows(consul, f"{prefix}x/")
        del after[entry.key]
        assert after == {key: row for key, row in before.items() if key != entry.key}
    # The next write of the part leaves out what is not ours.
    settle(ours, service(1), service(5))
    assert theirs.key not in json.loads(manifests(consul, prefix)[ours_part])["keys"]
    assert named(consul, prefix) <= {
        entry.key, theirs.key, ours.entry(service(4)).key, ours.entry(service(5)).key,
    }  # fmt: skip


def test_names_that_come_and_go_leave_nothing_behind(
    make: Make, consul: Consul, prefix: str
) -> None:
    """A part forgets keys when it is written anyway. A round without a new key writes no part."""
    ours = make()
    for number in range(100):
        settle(ours, service(1), service(100 + number))
        before = manifests(consul, prefix)
        settle(ours, service(1))
        assert manifests(consul, prefix) == before
        assert len(named(consul, prefix)) <= 3
    assert len(manifests(consul, prefix)) == 1


def test_many_services_make_several_parts(make: Make, consul: Consul, prefix: str) -> None:
    """One event writes a few KiB, however many services there are."""
    ours = make()
    services = [service(n, id=f"{'x' * 3000}{n}" if n % 100 == 0 else f"id{n}") for n in range(900)]
    settle(ours, *services)
    before = manifests(consul, prefix)
    assert len(before) > 4
    assert max(map(len, before.values())) < 10_000
    assert named(consul, prefix) == rows(consul, f"{prefix}/").keys()
    settle(ours, *services, service(1000))
    after = manifests(consul, prefix)
    assert len([key for key, text in after.items() if before.get(key) != text]) == 1
    assert not settle(make(), *services, service(1000))


def test_a_new_service_is_one_transaction(
    make: Make, consul: Consul, proxy: RecordingHTTPProxy
) -> None:
    ours = make()
    settle(ours, service(1))
    desired = ours.entry(service(2))
    ours.list([desired.key])
    proxy.requests.clear()
    assert ours.apply(Plan(register=(desired,))) == {}
    (request,) = proxy.requests
    verbs = [each["KV"]["Verb"] for each in json.loads(request.body)]
    assert verbs == ["cas", "cas"]


def test_a_write_that_lands_late_is_named_or_fails(
    make: Make, consul: Consul, prefix: str, proxy: RecordingHTTPProxy
) -> None:
    """A server that thaws may carry out a write whose key came and went meanwhile."""
    ours = make()
    settle(ours, service(1), service(2))
    settle(ours, service(1))
    proxy.requests.clear()
    (late,) = register(ours, service(2))
    (request,) = proxy.requests
    for forgotten in (False, True):
        settle(ours, service(1))
        if forgotten:
            settle(ours, service(1), service(4))
            assert late.key not in named(consul, prefix)
        try:
            put(consul, "txn", json.loads(request.body))
        except AssertionError:
            assert forgotten
        there = late.key in rows(consul, f"{prefix}/")
        assert there == (not forgotten)
        ended = settle(make(), service(1)).deregister
        assert there == (late.key in ended)


def test_a_name_stays_if_a_sibling_wrote_the_key_meanwhile(
    make: Make, consul: Consul, prefix: str
) -> None:
    """The agent saw the key free, and would forget its name with the next write."""
    ours, sibling = make(), make()
    settle(ours, service(1), service(2))
    settle(ours, service(1))
    (theirs,) = register(sibling, service(2))
    (mine,) = register(ours, service(3))
    assert named(consul, prefix) >= {theirs.key, mine.key}


def test_a_look_finds_what_a_sibling_wrote(make: Make) -> None:
    """It learns the name, and looks at the key as well."""
    ours, sibling = make(), make()
    settle(ours, service(1))
    (theirs,) = register(sibling, service(2, id="db"))
    assert theirs.key in ours.list()


def test_agents_of_one_host_write_at_once(make: Make, consul: Consul, prefix: str) -> None:
    """Siblings, as during an exchange of the container. None loses another's names."""
    agents = [make() for _ in range(4)]
    failed: list[BaseException] = []

    def work(ours: Backend, first: int) -> None:
        try:
            for number in range(first, first + 25):
                write = partial(register, ours, service(number))
                until(write, "the write", ignore=(Unavailable,))
                if number % 5 == 4:
                    key = ours.entry(service(number - 2)).key
                    assert ours.apply(Plan(deregister=(key,))) == {}
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(each, n * 1000)) for n, each in enumerate(agents)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failed == []
    there = rows(consul, f"{prefix}/").keys()
    assert len(there) == 80
    assert named(consul, prefix) >= there
    assert make().list().keys() == there


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingHTTPProxy]:
    """A Consul with ACLs, behind a proxy."""
    consul = Consul(tmp_path_factory.mktemp("guarded"), config=ACL)
    consul.start()
    proxy = RecordingHTTPProxy(consul.address)
    yield proxy
    proxy.close()
    consul.kill()


ENTRIES = 'key_prefix "services/" { policy = "write" }'
MANIFESTS = 'key_prefix ".registrator/services/" { policy = "%s" }'


class Guarded:
    """Backends with tokens of their own, whose rules may change."""

    def __init__(self, proxy: RecordingHTTPProxy) -> None:
        self.proxy = proxy
        self.made: list[Backend] = []

    def start(self, rules: str) -> tuple[Backend, str]:
        """A backend, and the id of its policy."""
        policy = self.put("acl/policy", {"Name": f"kv-{next(NUMBERS)}", "Rules": rules})
        secret = self.put("acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"]
        self.made.append(backend(f"consulkv://{secret}@{self.proxy.address}/services"))
        return self.made[-1], policy["ID"]

    def put(self, path: str, body: object) -> Any:
        return put(self.proxy, path, body, MASTER)


@pytest.fixture
def rights(guarded: RecordingHTTPProxy) -> Iterator[Guarded]:
    made = Guarded(guarded)
    yield made
    for each in made.made:
        each.close()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [each.getMessage() for each in caplog.records]
    return [line for line in lines if "manifest" in line]


@pytest.mark.parametrize("rules", [ENTRIES, f"{ENTRIES} {MANIFESTS % 'read'}"], ids=["no", "read"])
def test_a_token_without_the_right_to_write_the_manifest(
    rights: Guarded, caplog: pytest.LogCaptureFixture, rules: str
) -> None:
    """All keys are listed at the start only. Keys that ended go. One line tells."""
    settle(rights.start(f"{ENTRIES} {MANIFESTS % 'write'}")[0], service(1))
    settle(rights.start(rules)[0], service(1), service(2), service(3, id="db"))
    caplog.clear()
    listings(rights.proxy)
    ours, _ = rights.start(rules)
    gone = {ours.entry(service(2)).key, ours.entry(service(3, id="db")).key}
    assert {*settle(ours, service(1)).deregister} == gone
    assert len(listings(rights.proxy)) == 1
    for _ in range(3):
        assert not settle(ours, service(1))
    settle(ours, service(1), service(4))
    assert listings(rights.proxy) == []
    (line,) = told(caplog)
    assert MANIFESTS % "write" in line


def test_the_right_to_write_the_manifest_comes_later(
    rights: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rare listing, which is due at once here, finds the right."""
    monkeypatch.setattr("registrator.backends.consul.kv_finder.SWEEPS", (0.0, 0.0))
    listings(rights.proxy)
    ours, policy = rights.start(ENTRIES)
    for _ in range(2):
        settle(ours, service(1))
        assert len(listings(rights.proxy)) == 1
    rules = f"{ENTRIES} {MANIFESTS % 'write'}"
    rights.put(f"acl/policy/{policy}", {"ID": policy, "Name": f"kv-{policy}", "Rules": rules})

    def regained() -> bool:
        settle(ours, service(1), service(2, id="db"))
        return listings(rights.proxy) == []

    until(regained, "the right to the manifest")
    after, _ = rights.start(rules)
    assert settle(after, service(1)).deregister == (ours.entry(service(2, id="db")).key,)
    assert listings(rights.proxy) == []


def test_the_whole_store(consul: Consul) -> None:
    """The manifest lies within the prefix then, and is no entry."""
    ours = backend(f"consulkv://{consul.address}", "alone")
    (entry,) = register(ours, service(1))
    again = backend(f"consulkv://{consul.address}", "alone")
    for each in (ours, again):
        mine = {key for key, found in each.list().items() if found.mark is Mark.OURS}
        assert mine == {entry.key}
        assert not any(key.startswith(".registrator/") for key in each.list())
    assert any(key.startswith(".registrator/") for key in rows(consul, ""))
    with pytest.raises(Rejected, match="agents' own"):
        ours.entry(service(1, name=".registrator"))
    ours.apply(Plan(deregister=(entry.key,)))
    for each in (ours, again):
        each.close()


@pytest.mark.parametrize("odd", ["\x01", "\U0001fae8", "x" * 5000], ids=["control", "new", "long"])
def test_an_odd_key_with_our_flags_holds_up_nothing(
    make: Make, consul: Consul, prefix: str, odd: str
) -> None:
    """Anybody who reads the store sees our flags."""
    ours = make()
    settle(ours, service(1))
    (flags,) = {row["Flags"] for row in rows(consul, f"{prefix}/").values()}
    folder = ours.entry(service(1)).key.rpartition("/")[0]
    fields = {"Key": f"{folder}/host:{odd}", "Value": "MTI3LjkuMC4xOjE=", "Flags": flags}
    put(consul, "txn", [{"KV": {"Verb": "set", **fields}}])
    again = make()
    settle(again, service(1), service(2))
    assert {service(n).id for n in (1, 2)} <= {found.id for found in again.list().values()}


def test_a_key_that_was_written_without_a_name_is_found_once_the_right_is_back(
    rights: Guarded,
) -> None:
    """Another one without a name, of a container that still runs, tells that there may be more."""
    whole, less = (f"{ENTRIES} {MANIFESTS % right}" for right in ("write", "read"))
    settle(rights.start(whole)[0], service(1))
    settle(rights.start(less)[0], service(1), service(2), service(3))
    third = rights.start(whole)[0]
    assert settle(third, service(1), service(3)).deregister == (third.entry(service(2)).key,)


def test_whoever_changes_a_key_that_is_to_be_forgotten_holds_up_no_write(
    consul: Consul, prefix: str
) -> None:
    """A part forgets a key only in a transaction which checks that the key is free."""
    kept = f"{prefix}/web1/host:c1:80"
    looks, busy = count(), threading.Event()

    def change(request: Request) -> None:
        if busy.is_set() and "txn" in request.path and b'"cas"' in request.body:
            set_key(consul, kept, f"127.9.0.9:{next(looks)}")

    proxy = RecordingHTTPProxy(consul.address, before=change)
    ours = backend(f"consulkv://{proxy.address}/{prefix}")
    settle(ours, service(1))
    settle(ours)
    assert kept in named(consul, prefix)
    busy.set()
    settle(ours, service(2))
    assert {kept, ours.entry(service(2)).key} <= named(consul, prefix)
    ours.close()
    proxy.close()
