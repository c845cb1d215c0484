"""The Consul backend on real agents."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.consul import (
    ACL,
    ENOUGH,
    MASTER,
    backend,
    freeze,
    other,
    pair,
    put,
    register,
    service,
    token,
    with_tls,
)
from support.consul import OWNER as US
from support.names import resolve_as
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

from registrator.backend import Backend, ConfigError, Rejected, SessionLost, Unavailable
from registrator.backends.consul.registration import DIGEST, OWNER
from registrator.model import Mark, Plan


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """An agent at an address, at another address, and at a unix socket."""
    consul = Consul(tmp_path_factory.mktemp("consul"), config={"enable_script_checks": True})
    listen = f"{consul.ip} {other(consul)} unix://{consul.folder}/sock"
    consul.config["addresses"] = {"http": listen}
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def consul(agent: Consul) -> Iterator[Consul]:
    yield agent
    for key in agent.api("agent/services"):
        put(agent, f"agent/service/deregister/{key}")


@pytest.fixture
def ours(consul: Consul) -> Iterator[Backend]:
    made = backend(f"consul://{consul.address}")
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Consul]:
    """An agent of a test's own, to be broken."""
    consul = Consul(tmp_path)
    consul.start()
    yield consul
    consul.kill()


def statuses(consul: Consul) -> dict[str, str]:
    return {key: check["Status"] for key, check in consul.api("agent/checks").items()}


def test_an_entry_is_what_is_read_back(ours: Backend) -> None:
    plain = service(1, {"region": "eu", "a.b": "left out"})
    kinds = [
        {"check_http": "/h", "check_http_method": "HEAD"}, {"check_https": "/"},
        {"check_script": "/bin/true 'a b'"}, {"check_cmd": "true"}, {"check_ttl": "30s"},
        {"check_tcp": "1", "check_initial_status": "passing"}, {"check_grpc": "1"},
    ]  # fmt: skip
    probed = [service(i, attrs) for i, attrs in enumerate(kinds, 2)]
    named = service(20, id="ü/ä ?#%2F:1", name="日本", tags=("ß", "x=y,z"), address="fd00::1")
    entries = register(ours, plain, *probed, named, service(21, tags=()))
    found = ours.list()
    assert {key: actual.content for key, actual in found.items()} == {
        entry.key: entry.content for entry in entries
    }
    for entry in entries:
        actual = found[entry.key]
        assert (actual.mark, actual.held) == (Mark.OURS, True)
        assert (actual.id, actual.address) == (entry.service.id, entry.service.address)
    again = ours.list([entry.key for entry in entries])
    assert {id(key) for key in again} == {id(entry.key) for entry in entries}, "in memory once"
    keys = tuple(found)
    assert ours.apply(Plan(deregister=keys)) == {}
    assert ours.apply(Plan(deregister=keys)) == {}
    assert ours.list() == {}


def test_what_changes_shows(ours: Backend, consul: Consul) -> None:
    before = register(ours, service(1, {"a.b": "x", "check_tcp": "1"}))[0]
    changed = ours.entry(service(1, {"a.b": "y", "check_tcp": "1"}))
    assert changed.content != before.content
    put(consul, f"agent/check/deregister/service:{before.key}")
    assert ours.list()[before.key].content != before.content
    register(ours, service(1))
    assert ours.list()[before.key].content == ours.entry(service(1)).content
    assert consul.api("agent/checks") == {}


def test_marks(ours: Backend, consul: Consul) -> None:
    theirs = backend(f"consul://{consul.address}", "another owner")
    register(ours, service(1))
    register(theirs, service(2))
    put(consul, "agent/service/register", {"ID": "x", "Name": "x", "Address": "127.1.2.3"})
    found = ours.list()
    assert {key: actual.mark for key, actual in found.items()} == {
        "host:c1:80": Mark.OURS, "host:c2:80": Mark.OTHERS, "x": Mark.NONE,
    }  # fmt: skip
    assert found["x"].address == "127.1.2.3"
    theirs.close()


def test_what_a_container_sets_cannot_make_it_another_owners(ours: Backend) -> None:
    entry = register(ours, service(1, {OWNER: "another", DIGEST: "x", "ok": "yes"}))[0]
    assert ours.list()[entry.key].mark is Mark.OURS


def test_an_id_cannot_take_the_place_of_anothers_checks(consul: Consul) -> None:
    """Consul names the two checks ``service:db:1`` and ``service:db:2``."""
    checks = [{"TTL": "1h", "Status": "passing"}] * 2
    put(consul, "agent/service/register", {"ID": "db", "Name": "db", "Checks": checks})
    ours = lapsing(consul, 30)
    ours.list()
    register(ours, service(1))

    def holders() -> dict[str, tuple[str, str]]:
        checks = consul.api("agent/checks").items()
        return {key: (check["ServiceID"], check["Status"]) for key, check in checks}

    before = holders()
    failing = {"check_ttl": "1h", "check_initial_status": "critical"}
    thieves = [
        service(number, failing, id=text)
        for number, text in enumerate(("db:1", "host:c1:80:registrator"), 2)
    ]
    rejected = ours.apply(Plan(tuple(map(ours.entry, thieves))))
    assert rejected == {"db:1": "the id of its check, 'service:db:1', belongs to a check of db"}
    register(ours, service(5, id="db:1"))
    ours.apply(Plan((), ("db:1", "host:c1:80:registrator")))
    assert holders() == before
    ours.close()


def test_attributes_that_do_not_fit_are_warned_of_once(
    ours: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ours.entry(service(1, {"a.b": "x", "ok": "y", "long": "v" * 513}))
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 2
    assert all("container c1" in text for text in warned)


def test_rejected_beside_accepted(ours: Backend) -> None:
    wrong = {"check_http": "/", "check_interval": "9999999h"}
    entries = [ours.entry(service(1, wrong)), *(ours.entry(service(i)) for i in range(2, 20))]
    rejected = ours.apply(Plan(register=tuple(entries)))
    assert list(rejected) == [entries[0].key]
    assert "invalid duration" in rejected[entries[0].key]
    assert ours.list().keys() == {entry.key for entry in entries[1:]}
    with pytest.raises(Rejected, match="not a clean path"):
        ours.entry(service(id="../x"))


def test_scripts_switched_off_reject_the_service_alone(fresh: Consul) -> None:
    ours = backend(f"consul://{fresh.address}")
    entries = tuple(ours.entry(service(i, a)) for i, a in enumerate([{"check_script": "x"}, {}]))
    assert "Scripts are disabled" in ours.apply(Plan(register=entries))["host:c0:80"]
    assert ours.list().keys() == {"host:c1:80"}
    ours.close()


def test_unix_socket(consul: Consul) -> None:
    ours = backend(f"consul-unix://{consul.folder}/sock")
    entry = register(ours, service(1))[0]
    assert ours.list()[entry.key].content == entry.content
    ours.close()
    with pytest.raises(Unavailable, match="No such file"):
        backend("consul-unix:///nowhere/sock").list()


def test_the_leader_is_logged(ours: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ours.list()
    ours.list()
    said = [record.getMessage() for record in caplog.records if "leader" in record.getMessage()]
    assert len(said) == 1
    assert ": connected to 127." in said[0]


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        ("consul://a/path", {}),
        ("consul://a?dc=x", {}),
        ("consul://s3cret:s3cret@a", {}),
        ("consul://s3cret%0Ax@a", {}),
        ("consul-unix://", {}),
        ("consul-unix://host/sock", {}),
        ("consul://a", {"CONSUL_HTTP_TOKEN_FILE": "/nowhere"}),
        ("consul-tls://a", {"CONSUL_CACERT": "/nowhere"}),
        ("consul-tls://a", {"CONSUL_CLIENT_CERT": "/nowhere"}),
        ("consul-tls://a", {"CONSUL_CLIENT_KEY": "/nowhere"}),
        ("consul-tls://a", {"CONSUL_HTTP_SSL_VERIFY": "perhaps"}),
    ],
)
def test_mistakes_are_found_at_start(uri: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        backend(uri, environ=environ)
    assert "s3cret" not in str(caught.value)


def test_the_process_environment_does_not_count(
    consul: Consul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "not:an:address:at:all")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "wrong")
    ours = backend(f"consul://{consul.address}")
    assert ours.list() == {}
    ours.close()


def test_tls(tmp_path: Path) -> None:
    stranger = str(Authority(tmp_path / "stranger").ca)
    with with_tls(tmp_path) as (consul, full):
        uri = f"consul-tls://{consul.tls_address}"
        ours = backend(uri, environ=full)
        entry = register(ours, service(1))[0]
        assert ours.list()[entry.key].content == entry.content
        ours.close()
        for environ, works in [
            ({**full, "CONSUL_HTTP_SSL_VERIFY": "false", "CONSUL_CACERT": ""}, True),
            ({**full, "CONSUL_CACERT": stranger}, False),
            ({**full, "CONSUL_CACERT": ""}, False),
            ({"CONSUL_CACERT": full["CONSUL_CACERT"]}, False),
            ({**full, "CONSUL_TLS_SERVER_NAME": "another.host"}, False),
            ({**full, "CONSUL_TLS_SERVER_NAME": "localhost"}, True),
        ]:
            made = backend(uri, environ=environ)
            with (
                contextlib.nullcontext()
                if works
                else pytest.raises(Unavailable, match=f"^{consul.tls_address}: TLS: ")
            ):
                made.list()
            made.close()


@pytest.fixture(scope="module")
def guarded_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("acl"), config=ACL)
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def guarded(guarded_agent: Consul) -> Iterator[Consul]:
    yield guarded_agent
    for key in guarded_agent.api("agent/services", {"X-Consul-Token": MASTER}):
        put(guarded_agent, f"agent/service/deregister/{key}", token=MASTER)


def test_acl_rules(guarded: Consul) -> None:
    """The documented rules are enough. A missing one is told, and stops only what needs it."""
    enough = token(guarded, ENOUGH)
    ours = backend(f"consul://{enough}@{guarded.address}", ttl=30, ttl_refresh=10)
    entries = register(ours, service(1), service(2))
    ours.keepalive()
    assert ours.list().keys() == {entry.key for entry in entries}

    part = token(
        guarded, 'service "web1" { policy = "write" }\nagent_prefix "" { policy = "read" }'
    )
    some = backend(f"consul://{guarded.address}", environ={"CONSUL_HTTP_TOKEN": part})
    rejected = some.apply(Plan(register=tuple(entries)))
    assert list(rejected) == ["host:c2:80"]
    assert "service_prefix" in rejected["host:c2:80"]
    some.close()

    unknown = backend(f"consul://99999999-s3cret@{guarded.address}")
    for call in (unknown.list, lambda: unknown.apply(Plan(register=tuple(entries)))):
        with pytest.raises(Unavailable, match="permission denied") as caught:
            call()
        assert "s3cret" not in str(caught.value)
    unknown.close()
    ours.close()


def test_a_token_file_is_read_again(guarded: Consul, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("99999999-2222-3333-4444-555555555555\n")
    ours = backend(
        f"consul://{guarded.address}",
        environ={"CONSUL_HTTP_TOKEN_FILE": str(path)},
    )
    with pytest.raises(Unavailable, match="give a token that this Consul knows"):
        ours.list()
    path.unlink()
    with pytest.raises(Unavailable, match=r"permission denied .*_FILE .* cannot be read"):
        ours.list()
    path.write_text(token(guarded, ENOUGH) + "\n")
    entry = register(ours, service(7))[0]
    assert entry.key in ours.list()
    ours.apply(Plan(deregister=(entry.key,)))
    ours.close()


def test_frozen(fresh: Consul) -> None:
    ours = backend(f"consul://{fresh.address}", timeout=0.5)
    services = [service(i) for i in range(40)]
    # So short a limit also ends calls at a busy machine.
    entries = until(lambda: register(ours, *services), "the services", ignore=(Unavailable,))
    freeze(fresh)
    for plan in (None, Plan(register=tuple(entries))):
        with pytest.raises(Unavailable, match=r"within 0\.5 s"):
            ours.apply(plan) if plan else ours.list()
    fresh.thaw()
    until(lambda: len(ours.list()) == 40, "the thawed agent", ignore=(Unavailable, SessionLost))
    ours.close()


def test_a_restart_is_noticed_while_idle(fresh: Consul) -> None:
    ours = backend(f"consul://{fresh.address}")
    register(ours, service(1))
    ours.keepalive()
    fresh.kill()
    fresh.wipe()
    fresh.start()
    with pytest.raises(SessionLost, match="may have restarted"):
        ours.keepalive()
    assert ours.list() == {}
    ours.keepalive()
    fresh.kill()
    for call in (ours.keepalive, ours.list):
        with pytest.raises(Unavailable, match="Connection refused"):
            call()
    ours.close()


def lapsing(consul: Consul, ttl: float) -> Backend:
    return backend(f"consul://{consul.address}", ttl=ttl, ttl_refresh=0.2)


def test_one_ttl_check_keeps_all_services_alive(consul: Consul) -> None:
    ours = lapsing(consul, 1)
    entries = register(ours, service(1, {"check_ttl": "1h", "check_initial_status": "passing"}),
                       service(2))  # fmt: skip
    assert {key: a.content for key, a in ours.list().items()} == {
        entry.key: entry.content for entry in entries
    }
    followers = [f"registrator:{entry.key}" for entry in entries]
    twin = {"Name": "twin", "ID": "twin", "TTL": "1s", "Status": "passing"}
    put(consul, "agent/check/register", twin)

    def follow(status: str) -> bool:
        now = statuses(consul)
        return all(now[key] == status for key in followers)

    def kept() -> bool:
        ours.keepalive()
        return statuses(consul)["twin"] == "critical" and follow("passing")

    until(kept, "the end of a TTL that nobody kept alive")
    put(consul, "agent/check/deregister/twin")
    ours.close()
    until(lambda: follow("critical"), "the services to turn critical")
    # The catalog follows the agent a little later.
    until(lambda: consul.api("health/service/web2?passing") == [], "the catalog to follow")
    again = lapsing(consul, 1)
    again.list()
    assert again.keepalive_interval == 0
    again.keepalive()
    until(lambda: follow("passing"), "the services to recover")
    again.close()


def test_the_owners_check_is_put_back(consul: Consul) -> None:
    ours = lapsing(consul, 30)
    register(ours, service(1))
    put(consul, f"agent/service/deregister/registrator:{US}:host")
    with pytest.raises(SessionLost):
        ours.keepalive()
    assert ours.list().keys() == {"host:c1:80"}
    ours.keepalive()
    until(lambda: set(statuses(consul).values()) == {"passing"}, "passing again")
    ours.close()


def test_without_ttl_its_former_check_is_dangling(consul: Consul, ours: Backend) -> None:
    with contextlib.closing(lapsing(consul, 30)) as former:
        former.apply(Plan(register=(ours.entry(service(1)),)))
    assert ours.list()[f"registrator:{US}:host"].mark is Mark.OURS


def instances(agent: Consul) -> list[tuple[str, str]]:
    """Node and id of every service in the catalog, as `agent` tells it."""
    found: list[dict[str, Any]] = agent.api("catalog/service/web1")
    return sorted((row["Node"], row["ServiceID"]) for row in found)


def settle(ours: Backend) -> None:
    """Do what the reconciler does after a failure: list, then write the difference."""
    wanted = {entry.key: entry for entry in (ours.entry(service(1)), ours.entry(service(51)))}
    for _ in range(3):
        try:
            found = ours.list()
            missing = wanted.keys() - {key for key, actual in found.items() if actual.held}
            stale = {key for key, actual in found.items() if actual.mark is Mark.OURS} - set(wanted)
            ours.apply(Plan(tuple(wanted[key] for key in missing), tuple(stale)))
            return
        except SessionLost:
            continue
    raise AssertionError("no agent to settle with")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Consul, Consul]]:
    with pair(tmp_path) as agents:
        yield agents


@pytest.mark.parametrize("restarted", [False, True])
def test_failover_leaves_each_service_once(two: tuple[Consul, Consul], restarted: bool) -> None:
    first, second = two
    uri = f"consul://{first.address},{second.address}"
    ours = backend(uri)
    settle(ours)
    put(first, "agent/service/register", {"ID": "host:theirs:80", "Name": "web1"})
    first.kill()
    with pytest.raises(SessionLost):
        ours.apply(Plan(register=(ours.entry(service(1)),)))
    settle(ours)
    if restarted:
        ours.close()
        ours = backend(uri)
        settle(ours)
    keep_alive(ours)

    first.launch()
    nodes = second.config["node_name"], first.config["node_name"]
    expected = [(nodes[0], "host:c1:80"), (nodes[0], "host:c51:80"), (nodes[1], "host:theirs:80")]
    until(lambda: serves(first), "the former agent's return", ignore=(OSError,))

    def once() -> bool:
        keep_alive(ours)
        return instances(second) == sorted(expected)

    until(once, lambda: f"each service once: {instances(second)}")
    until(lambda: settled(ours), "nothing owed")
    ours.close()


def serves(agent: Consul) -> bool:
    return bool(agent.api("status/leader"))


def settled(ours: Backend) -> bool:
    """Whether no address owes us a look any more, after one more round of looks."""
    keep_alive(ours)
    return ours.keepalive_interval == 1.0 and not ours._leftovers  # type: ignore[attr-defined]


def keep_alive(ours: Backend) -> None:
    with contextlib.suppress(SessionLost):
        ours.keepalive()


def test_a_frozen_agent_is_left_and_cleaned_when_it_thaws(two: tuple[Consul, Consul]) -> None:
    first, second = two
    ours = backend(f"consul://{first.address},{second.address}", timeout=2)
    settle(ours)
    freeze(first)
    with pytest.raises(SessionLost):
        register(ours, service(1), service(101))
    settle(ours)
    ours.keepalive()
    first.thaw()

    def clean() -> bool:
        settle(ours)
        return settled(ours) and first.api("agent/services") == {}

    until(clean, "the thawed agent to be clean")
    assert len(ours.list()) == 2
    ours.close()


def answer(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "refusal",
    [answer("403 Forbidden", "ACL not found"), answer("404 Not Found")],
    ids=["token", "page"],
)
def test_copies_go_also_after_a_refusal_that_passes(
    two: tuple[Consul, Consul], caplog: pytest.LogCaptureFixture, refusal: bytes
) -> None:
    """An agent that returns before its servers do knows no token, for instance."""
    first, second = two
    proxy = TCPProxy(first.address)
    ours = backend(f"consul://{proxy.address},{second.address}")
    try:
        settle(ours)
        first.kill()
        with pytest.raises(SessionLost):
            ours.keepalive()
        settle(ours)
        proxy.instead = refusal
        first.launch()
        until(lambda: serves(first), "the former agent's return", ignore=(OSError,))

        def told() -> list[str]:
            keep_alive(ours)
            return [line for line in caplog.messages if "cannot be found" in line]

        until(told, "a warning")
        for _ in range(3):
            seen = proxy.received

            def looked(seen: int = seen) -> bool:
                return len(told()) > 1 or proxy.received > seen

            until(looked, "another look")
            assert len(told()) == 1
        proxy.instead = b""
        until(lambda: settled(ours), "nothing owed")
        assert first.api("agent/services") == {}
        assert len(second.api("agent/services")) == 2
    finally:
        ours.close()
        proxy.close()


@pytest.mark.parametrize("said", ["<html>", "[1]", '{"a": 1}'])
@pytest.mark.parametrize("scheme", ["consul://{}", "consulkv://{}/services"])
def test_what_is_no_consul_is_told_and_left(consul: Consul, scheme: str, said: str) -> None:
    """A proxy's page, or somebody else's port: no bug of ours, for which the agent would end."""
    proxy = TCPProxy(consul.address)
    proxy.instead = answer("200 OK", said)
    ours = backend(scheme.format(proxy.address))
    try:
        with pytest.raises(Unavailable, match=r"not in Consul's format|no cluster leader"):
            ours.list()
        proxy.instead = b""
        ours.list()
        proxy.instead = answer("200 OK", said)
        with pytest.raises((Unavailable, SessionLost)):
            ours.list()
    finally:
        ours.close()
        proxy.close()


def test_an_address_that_is_no_consul_harms_nothing(consul: Consul) -> None:
    proxy = TCPProxy(consul.address)
    proxy.instead = answer("200 OK", "<html>")
    ours = backend(f"consul://{consul.address},{proxy.address}")
    try:
        register(ours, service(1))
        for _ in range(2):
            ours.keepalive()
            until(lambda: proxy.received, "a look at it")
        assert len(ours.list()) == 1
    finally:
        ours.close()
        proxy.close()


def test_a_frozen_agent_is_noticed_while_idle(two: tuple[Consul, Consul]) -> None:
    first, second = two
    ours = backend(f"consul://{first.address},{second.address}", timeout=2)
    settle(ours)
    ours.keepalive()
    freeze(first)
    with pytest.raises(SessionLost, match="no answer within"):
        ours.keepalive()
    settle(ours)
    assert len(second.api("agent/services")) == 2
    ours.close()


def test_an_agent_without_its_cluster_still_takes_services(tmp_path: Path) -> None:
    consul = Consul(tmp_path, servers=0, join=["127.1.1.1:9"])
    consul.launch()
    ours = backend(f"consul://{consul.address},127.1.1.1:9")
    until(lambda: ours.list() == {}, "the agent", ignore=(Unavailable,))
    entry = register(ours, service(1))[0]
    ours.keepalive()
    assert entry.key in ours.list()
    ours.close()
    consul.kill()


def test_two_addresses_of_one_agent(consul: Consul) -> None:
    port = consul.ports["http"]
    ours = backend(f"consul://{consul.ip}:{port},{other(consul)}:{port}")
    register(ours, service(1), service(2))
    until(lambda: settled(ours), "nothing owed")
    assert len(ours.list()) == 2
    ours.close()


def test_copies_stay_where_the_token_may_not_tell_agents_apart(
    guarded: Consul, caplog: pytest.LogCaptureFixture
) -> None:
    secret = token(guarded, 'service_prefix "" { policy = "write" }')
    ours = backend(f"consul://{secret}@{guarded.address},127.1.1.1:9")
    register(ours, service(1))
    ours.keepalive()
    ours.keepalive()
    assert len([r for r in caplog.records if "agent_prefix" in r.getMessage()]) == 1
    assert len(ours.list()) == 1
    ours.apply(Plan(deregister=tuple(ours.list())))
    ours.close()


def test_a_name_stands_for_all_its_addresses(
    consul: Consul, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = consul.ports["http"]
    resolve_as(monkeypatch, "consul.invalid", lambda: ("127.1.1.1", consul.ip))
    ours = backend(f"consul://consul.invalid:{port}")
    assert ours.list() == {}
    ours.close()


def test_all_addresses_dead() -> None:
    ours = backend("consul://127.1.1.1:9,[::1]:9,nowhere.invalid:9", timeout=1)
    with pytest.raises(Unavailable) as caught:
        ours.list()
    for part in ("127.1.1.1:9: Connection refused", "[::1]:9", "nowhere.invalid:9"):
        assert part in str(caught.value)
    ours.keepalive()
    ours.close()
