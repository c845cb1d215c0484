"""A new ACL token registers everything again. The least rights are enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.consul import ACL, ENOUGH, MASTER, OWNER, backend, put, register, service, token
from support.proxy import RecordingHTTPProxy, Request, TCPProxy
from support.servers import Consul, start_all
from support.wait import until

from registrator.backend import Backend, SessionLost, Unavailable
from registrator.model import ContainerHealth, Plan
from registrator.sync.plan import Here, by_key, diff

HERE = Here("host", frozenset({"127.9.0.1"}), frozenset({"127.9.0.1"}))
Pair = tuple[Consul, Consul]

KNOCK = {"X-Consul-Token": MASTER}
LEASED: Mapping[str, Any] = {"ttl": 30, "ttl_refresh": 10}
ENDS = service(3)
CHECKED = replace(
    service(1, {"check_ttl": "1h", "check_initial_status": "passing"}),
    health=ContainerHealth.HEALTHY,
)


@pytest.fixture(scope="module")
def guarded_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    consul = Consul(tmp_path_factory.mktemp("acl"), config=ACL)
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture
def guarded(guarded_agent: Consul) -> Iterator[Consul]:
    yield guarded_agent
    for key in guarded_agent.api("agent/services", KNOCK):
        put(guarded_agent, f"agent/service/deregister/{key}", token=MASTER)


@pytest.fixture
def guarded_pair(tmp_path: Path) -> Iterator[Pair]:
    """A server with ACLs, and a client agent that joined it."""
    server = Consul(tmp_path / "a", config=ACL, name="a")
    client = Consul(tmp_path / "b", config=ACL, name="b", servers=0, join=[server.serf_address])
    client.config["acl"] = {
        **client.config["acl"],
        "tokens": {"agent": MASTER, "default": MASTER},
        # It knows a token and its rights for so long after it is revoked. By default it is 30 s.
        "token_ttl": "10m",
        "policy_ttl": "10m",
    }
    try:
        start_all([server, client])
        until(lambda: keeps_tokens(client), "the client to use the servers' kind of ACLs")
        yield server, client
    finally:
        server.kill()
        client.kill()


def keeps_tokens(client: Consul) -> bool:
    """Whether a client agent uses the ACLs of Consul 1.4. It then keeps what it knows of tokens.

    Consul before 1.11 starts with the old ones, and forgets all tokens at the change.
    """
    tags = client.api("agent/self", KNOCK)["Member"]["Tags"]
    return bool(tags.get("acls", "1") == "1")


def revoke(consul: Consul, secret: str) -> None:
    found = consul.api("acl/token/self", {"X-Consul-Token": secret})
    put(consul, f"acl/token/{found['AccessorID']}", token=MASTER, method="DELETE")


def reconcile(ours: Backend) -> bool:
    """Do one round. Returns whether it wrote something."""
    desired, _ = by_key([ours.entry(CHECKED)])
    plan = diff(desired, ours.list(), HERE, dangling=lambda _: True)
    assert ours.apply(plan) == {}
    return bool(plan)


def hold_syncs(consul: Consul) -> None:
    """Hold that the catalog follows the service's check."""
    for verb, status in (("fail", "critical"), ("pass", "passing")):
        put(consul, f"agent/check/{verb}/service:{CHECKED.id}", token=MASTER)

        def told(status: str = status) -> bool:
            rows = consul.api(f"health/checks/{CHECKED.name}", KNOCK)
            return any(
                row["CheckID"] == f"service:{CHECKED.id}" and row["Status"] == status
                for row in rows
            )

        until(told, f"the catalog to say {status}")


@pytest.mark.parametrize("context", [{}, LEASED], ids=["stays", "leased"])
def test_a_restart_with_another_token_registers_everything_again(
    guarded: Consul, context: Mapping[str, Any]
) -> None:
    old, new = token(guarded, ENOUGH), token(guarded, ENOUGH)
    first = backend(f"consul://{old}@{guarded.address}", **context)
    reconcile(first)
    first.keepalive()
    first.close()
    proxy = RecordingHTTPProxy(guarded.address)
    second = backend(f"consul://{new}@{proxy.address}", **context)
    assert reconcile(second)
    second.keepalive()
    revoke(guarded, old)
    hold_syncs(guarded)
    assert not any("deregister" in each.path for each in proxy.writes)
    assert {each.path for each in proxy.writes} >= {"/v1/agent/service/register"}
    proxy.requests.clear()
    assert not reconcile(second)
    again = backend(f"consul://{new}@{proxy.address}", **context)
    assert not reconcile(again)
    assert not proxy.writes
    owners = [s for s in guarded.api("agent/services", KNOCK).values()
              if s["Service"] == "registrator"]  # fmt: skip
    meta = guarded.api("agent/services", KNOCK)[CHECKED.id]["Meta"]
    assert {each["Meta"]["registrator-token"] for each in owners} <= {meta["registrator-token"]}
    assert not any(secret in str(meta) for secret in (old, new))
    again.close()
    second.close()
    proxy.close()


@pytest.mark.parametrize("context", [{}, LEASED], ids=["stays", "leased"])
@pytest.mark.parametrize("revoked", [False, True])
def test_a_new_token_in_the_file_is_noticed(
    guarded: Consul, tmp_path: Path, context: Mapping[str, Any], revoked: bool
) -> None:
    old, new = token(guarded, ENOUGH), token(guarded, ENOUGH)
    path = tmp_path / "token"
    path.write_text(old)
    woken = threading.Event()
    environ = {"CONSUL_HTTP_TOKEN_FILE": str(path)}
    ours = backend(f"consul://{guarded.address}", environ=environ, wake=woken.set, **context)
    reconcile(ours)
    ours.keepalive()
    assert not woken.is_set()
    if revoked:
        revoke(guarded, old)
    path.write_text(new)
    ours.keepalive()
    assert woken.is_set()
    woken.clear()
    assert reconcile(ours)
    ours.keepalive()
    if not revoked:
        revoke(guarded, old)
    hold_syncs(guarded)
    assert not reconcile(ours)
    assert not woken.is_set()
    ours.close()


def test_a_token_that_is_revoked_while_it_is_used_is_noticed(
    guarded: Consul, tmp_path: Path
) -> None:
    old, new = token(guarded, ENOUGH), token(guarded, ENOUGH)
    path = tmp_path / "token"
    path.write_text(old)
    woken = threading.Event()
    environ = {"CONSUL_HTTP_TOKEN_FILE": str(path)}
    ours = backend(f"consul://{guarded.address}", environ=environ, wake=woken.set)
    reconcile(ours)
    path.write_text(new)
    revoke(guarded, old)
    register(ours, service(2))
    assert woken.is_set()
    assert not ours.list()[CHECKED.id].held
    ours.close()


def known(consul: Consul) -> bool:
    """Whether the catalog has the service that ends."""
    return bool(consul.api(f"catalog/service/{ENDS.name}", KNOCK))


def test_what_ends_after_its_token_leaves_the_catalog(guarded: Consul) -> None:
    """Consul removes it with the token that registered it, and never if that one is revoked."""
    old, new = token(guarded, ENOUGH), token(guarded, ENOUGH)
    first = backend(f"consul://{old}@{guarded.address}")
    register(first, ENDS)
    until(lambda: known(guarded), "the catalog to have it")
    first.close()
    revoke(guarded, old)
    second = backend(f"consul://{new}@{guarded.address}")
    second.list()
    assert second.apply(Plan((), (ENDS.id,))) == {}
    until(lambda: not known(guarded), "the catalog to forget it")
    second.close()


def test_a_copy_elsewhere_leaves_the_catalog_after_its_token(guarded_pair: Pair) -> None:
    home, away = guarded_pair
    old, new = token(home, ENOUGH), token(home, ENOUGH)
    former = backend(f"consul://{old}@{away.address}")
    register(former, ENDS)
    until(lambda: known(home), "the catalog to have the copy")
    former.close()
    revoke(home, old)
    ours = backend(f"consul://{new}@{home.address},{away.address}")
    ours.list()

    def gone() -> bool:
        ours.keepalive()
        if ENDS.id in ours.list():
            ours.apply(Plan(deregister=(ENDS.id,)))
        return not known(home)

    until(gone, "the catalog to forget the copy")
    ours.close()


@pytest.mark.parametrize("reconnects", [False, True])
def test_what_ended_just_before_its_token_leaves_the_catalog(
    guarded_pair: Pair, tmp_path: Path, reconnects: bool
) -> None:
    """A Consul agent keeps in mind what a token may do. So it takes a removal that its servers
    refuse, and it never tries another token."""
    server, client = guarded_pair
    old, new = token(server, ENOUGH), token(server, ENOUGH)
    path = tmp_path / "token"
    path.write_text(old)
    environ = {"CONSUL_HTTP_TOKEN_FILE": str(path)}
    proxy = TCPProxy(client.address)
    ours = backend(f"consul://{proxy.address}", environ=environ)
    register(ours, ENDS, service(2))
    until(lambda: known(server), "the catalog to have it")
    revoke(server, old)
    assert ours.apply(Plan((), (ENDS.id,))) == {}
    path.write_text(new)
    if reconnects:
        proxy.cut()

    def gone() -> bool:
        ours.keepalive()
        ours.list()
        return not known(server)

    until(gone, "the catalog to forget it", ignore=(SessionLost,))
    assert client.api("agent/services", KNOCK).keys() == {"host:c2:80"}
    ours.close()
    proxy.close()


def test_what_ended_while_the_token_could_not_be_told_leaves_the_catalog(
    guarded_pair: Pair, tmp_path: Path
) -> None:
    """A Consul agent without its servers cannot tell the token, so nothing looks outdated.

    It then removes an entry with the old token, although the new one is known by that time.
    """
    server, client = guarded_pair
    old, new = token(server, ENOUGH), token(server, ENOUGH)
    path = tmp_path / "token"
    path.write_text(old)
    environ = {"CONSUL_HTTP_TOKEN_FILE": str(path)}
    leaderless = threading.Event()

    def before(request: Request) -> tuple[int, str] | None:
        away = leaderless.is_set() and request.path.startswith("/v1/acl/token/self")
        return (500, "No cluster leader") if away else None

    proxy = RecordingHTTPProxy(client.address, before=before)
    woken = threading.Event()
    ours = backend(f"consul://{proxy.address}", environ=environ, wake=woken.set)
    register(ours, ENDS, service(2))
    until(lambda: known(server), "the catalog to have it")
    leaderless.set()
    path.write_text(new)
    ours.keepalive()
    assert ours.list()[ENDS.id].held
    leaderless.clear()
    revoke(server, old)
    woken.clear()
    assert ours.apply(Plan((ours.entry(service(4)),), (ENDS.id,))) == {}
    ours.keepalive()
    assert woken.is_set()
    listed = ours.list()
    assert listed[service(4).id].held
    assert not listed[service(2).id].held
    until(lambda: not known(server), "the catalog to forget it")
    woken.clear()
    ours.keepalive()
    assert not woken.is_set()
    ours.close()
    proxy.close()


def test_what_ended_before_a_move_there_and_back_leaves_the_catalog(
    guarded_pair: Pair, tmp_path: Path
) -> None:
    """The agent sees the new token first while it uses another Consul agent, and returns then."""
    server, client = guarded_pair
    old, new = token(server, ENOUGH), token(server, ENOUGH)
    path = tmp_path / "token"
    path.write_text(old)
    environ = {"CONSUL_HTTP_TOKEN_FILE": str(path)}
    home, away = TCPProxy(client.address), TCPProxy(server.address)
    ours = backend(f"consul://{home.address},{away.address}", environ=environ)
    register(ours, ENDS)
    until(lambda: known(server), "the catalog to have it")
    revoke(server, old)
    assert ours.apply(Plan((), (ENDS.id,))) == {}
    path.write_text(new)

    def listed() -> bool:
        ours.list()
        return True

    for proxy, other in ((home, away), (away, home)):
        proxy.instead = b"no HTTP\r\n\r\n"
        proxy.cut()
        until(listed, f"a listing at {other.address}", ignore=(Unavailable, SessionLost))
        proxy.instead = b""
    until(lambda: not known(server), "the catalog to forget it")
    ours.close()
    home.close()
    away.close()


def test_without_acls_nothing_is_marked(consul: Consul) -> None:
    """A token is no use there, but it may be set."""
    ours = backend(f"consul://99999999-2222-3333-4444-555555555555@{consul.address}")
    assert reconcile(ours)
    assert not reconcile(ours)
    meta = consul.api("agent/services")[CHECKED.id]["Meta"]
    assert meta.keys() & {"registrator-token", "registrator-host"} == {"registrator-host"}
    ours.close()


def test_the_documented_rights_are_enough_for_everything(guarded_pair: Pair) -> None:
    """With two addresses, ``-ttl``, a critical node, copies elsewhere, and checks to remove."""
    first, second = guarded_pair
    secret = token(first, ENOUGH)
    put(second, "agent/check/register", {"Name": "x", "TTL": "1h", "Status": "critical"}, MASTER)
    elsewhere = backend(f"consul://{secret}@{first.address}", **LEASED)
    register(elsewhere, service(1), service(2))
    elsewhere.close()
    ours = backend(f"consul://{secret}@{second.address},{first.address}", **LEASED)
    until(lambda: ours.list() == {}, "the second", ignore=(SessionLost,))
    register(ours, CHECKED, service(2))
    register(ours, service(1), service(2))

    def clean() -> bool:
        ours.keepalive()
        found = first.api("agent/services", KNOCK)
        statuses = second.api("agent/checks", KNOCK)
        assert statuses[f"registrator:{CHECKED.id}"]
        return not found.keys() - {"consul"}

    until(clean, lambda: f"the copies to go: {first.api('agent/services', KNOCK)}")
    assert ours.apply(Plan((), ("host:c1:80", "host:c2:80"))) == {}
    assert second.api("agent/services", KNOCK).keys() == {f"registrator:{OWNER}:host"}
    ours.close()
