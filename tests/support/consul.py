"""Helpers for the tests of both Consul backends: backends, services, requests, a pair of agents."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from registrator.backend import Backend, Context, load
from registrator.model import Entry, Identity, Plan, Service, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler
from registrator.uri import parse
from support.certificates import Authority
from support.proxy import RecordingHTTPProxy
from support.servers import Consul, start_all
from support.wait import DEADLINE, until

OWNER = "7GZK:HOST"
MASTER = "11111111-2222-3333-4444-555555555555"
ACL: Mapping[str, Any] = {
    "primary_datacenter": "dc1",
    "acl": {"enabled": True, "default_policy": "deny", "tokens": {"initial_management": MASTER}},
}

# The rules that docs/registries/consul.md asks for.
ENOUGH = 'service_prefix "" { policy = "write" }\nagent_prefix "" { policy = "read" }'


def backend(uri: str, owner: str | Identity = OWNER, **context: Any) -> Backend:
    """A backend for `uri`, with time for a busy machine unless `context` has a `timeout`."""
    context.setdefault("timeout", DEADLINE)
    parsed = parse(uri)
    identity = Identity(owner, "host") if isinstance(owner, str) else owner
    return load(parsed.scheme)(Context(parsed, identity, **context))


def other(consul: Consul) -> str:
    """A second address for an agent."""
    first, second, third, last = consul.ip.split(".")
    return f"{first}.{second}.{(int(third) + 1) % 256}.{last}"


def service(number: int = 0, attrs: Mapping[str, str] | None = None, **fields: Any) -> Service:
    """One service. `number` makes it different from others."""
    values: dict[str, Any] = {
        "id": f"host:c{number}:80",
        "name": f"web{number % 50}",
        "address": "127.9.0.1",
        "port": 20000 + number,
        "private_port": 80,
        "tags": ("b", "a"),
        "container_id": f"{number:064x}",
        "container_name": f"c{number}",
    }
    return Service(attrs=attrs or {}, **{**values, **fields})


class Running:
    """A reconciler in a thread of its own, which keeps `services` at `uri`.

    It has no resync, which would find after a while what nothing else told.
    """

    def __init__(self, uri: str, *services: Service, **context: Any) -> None:
        def make(wake: Callable[[], None], wake_soon: Callable[[], None]) -> Backend:
            return backend(uri, wake=wake, wake_soon=wake_soon, **context)

        report = RegistryReport(uri, time.monotonic)
        self._reconciler = Reconciler(report, make, Identity(OWNER, "host"), resync=0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._reconciler.run, args=(self._stop,))
        self._thread.start()
        own = frozenset({"127.9.0.1"})
        found = {each.id: each for each in services}
        self._reconciler.publish(Snapshot(found, own, host_addresses=own))

    def stop(self) -> None:
        """End it. The entries stay."""
        self._stop.set()
        self._reconciler.retry_now()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


def register(backend: Backend, *services: Service) -> list[Entry]:
    """Register services, all of which have to be accepted."""
    entries = [backend.entry(each) for each in services]
    assert backend.apply(Plan(register=tuple(entries))) == {}
    return entries


def put(
    agent: Consul | RecordingHTTPProxy,
    path: str,
    body: object = None,
    token: str = "",
    method: str = "PUT",
) -> Any:
    """A PUT to ``/v1/<path>`` from outside. Returns the answer's JSON."""
    answer = urllib3.request(
        method,
        f"http://{agent.address}/v1/{path}",
        body=b"" if body is None else json.dumps(body).encode(),
        headers={"X-Consul-Token": token} if token else {},
        timeout=DEADLINE,
        retries=False,
    )
    assert answer.status == 200, answer.data
    return json.loads(answer.data) if answer.data else None


def set_key(consul: Consul, key: str, value: str, flags: int = 0, session: str = "") -> None:
    """Write a key of the store as ``consul kv put`` does, or lock it by a session."""
    pair = {"Key": key, "Value": base64.b64encode(value.encode()).decode(), "Flags": flags}
    verb = {"Verb": "lock", "Session": session} if session else {"Verb": "set"}
    put(consul, "txn", [{"KV": {**verb, **pair}}])


def clear(agent: Consul) -> None:
    """Deregister every service and delete every key."""
    for service_id in agent.api("agent/services"):
        put(agent, f"agent/service/deregister/{quote(service_id, safe='')}")
    put(agent, "kv/?recurse", method="DELETE")


def token(agent: Consul, rules: str) -> str:
    """The secret of a new token with these rules, at an agent started with `ACL`."""
    name = f"policy-{uuid.uuid4()}"
    put(agent, "acl/policy", {"Name": name, "Rules": rules}, MASTER)
    secret: str = put(agent, "acl/token", {"Policies": [{"Name": name}]}, MASTER)["SecretID"]
    return secret


@contextlib.contextmanager
def pair(folder: Path) -> Iterator[tuple[Consul, Consul]]:
    """Two agents of one cluster, both clients, so that the server outlives either."""
    server = Consul(folder / "server", name="server")
    clients = [
        Consul(folder / name, name=name, servers=0, join=[server.serf_address])
        for name in ("a", "b")
    ]
    start_all([server, *clients])
    try:
        yield clients[0], clients[1]
    finally:
        for each in (server, *clients):
            each.kill()


@contextlib.contextmanager
def with_tls(folder: Path) -> Iterator[tuple[Consul, Mapping[str, str]]]:
    """A server that asks for certificates, and what a client needs in its environment."""
    authority = Authority(folder / "ca")
    consul = Consul(folder / "consul", authority=authority)
    cert, key = authority.issue("client")
    try:
        consul.start()
        yield (
            consul,
            {
                "CONSUL_CACERT": str(authority.ca),
                "CONSUL_CLIENT_CERT": str(cert),
                "CONSUL_CLIENT_KEY": str(key),
            },
        )
    finally:
        consul.kill()


def freeze(consul: Consul) -> None:
    """Stop it and wait until it is stopped: the signal takes effect a little later."""
    consul.freeze()
    status = Path(f"/proc/{consul.pid}/status")
    until(lambda: "State:\tT" in status.read_text(), f"{consul.name} to be frozen")
