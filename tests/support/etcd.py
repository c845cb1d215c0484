"""etcd as the tests look at it: through etcdctl and the server's metrics, never our own code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registrator.backend import Backend, Context, load
from registrator.model import Identity
from registrator.uri import parse
from support.servers import Etcd, program

# Elections within 0.1 s, for a server alone. Leases may be as short as a second then.
QUICK = ("--heartbeat-interval=10", "--election-timeout=100")


@contextmanager
def running(folder: Path, *flags: str, **options: Any) -> Iterator[Etcd]:
    """A server alone that is gone afterwards."""
    program("etcdctl", package="etcd-client")
    etcd = Etcd(folder, flags=(*QUICK, *flags), **options)
    try:
        etcd.start()
        yield etcd
    finally:
        etcd.remove()


@contextmanager
def guarding(folder: Path, *flags: str) -> Iterator[Etcd]:
    """A server that demands a login (see `guard`), with tokens that last a second."""
    with running(folder, "--auth-token-ttl=1", "--bcrypt-cost=4", *flags) as etcd:
        guard(etcd)
        yield etcd


def guard(etcd: Etcd) -> None:
    """Have a cluster demand a login. Its user ``agent`` may write below ``/s/``."""
    for command in (
        "user add root:r00t", "role add root", "user grant-role root root",
        "user add agent:s3cret", "role add agent", "user grant-role agent agent",
        "role grant-permission agent readwrite --prefix=true /s/", "auth enable",
    ):  # fmt: skip
        ctl(etcd, *command.split())


def ctl(etcd: Etcd, *arguments: str, user: str = "", stdin: str = "") -> str:
    """The output of etcdctl."""
    who = [f"--user={user}"] if user else []
    done = subprocess.run(
        ["etcdctl", f"--endpoints={etcd.address}", *who, *arguments],
        env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def keys(etcd: Etcd, prefix: str) -> dict[str, str]:
    """Keys and values below a prefix."""
    lines = ctl(etcd, "get", "--prefix", prefix).splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def revision(etcd: Etcd) -> int:
    """The store's revision: every write counts it up."""
    return _number("revision", ctl(etcd, "get", "x", "--write-out=json"))


def lease_of(etcd: Etcd, key: str, user: str = "") -> str:
    """The id of a key's lease as etcdctl lists it."""
    return f"{_number('lease', ctl(etcd, 'get', key, '--write-out=json', user=user)):x}"


def _number(name: str, text: str) -> int:
    match = re.search(rf'"{name}":(\d+)', text)
    assert match is not None, text
    return int(match[1])


def requests(etcd: Etcd, method: str) -> int:
    """How many calls of a gRPC method the server has begun to handle."""
    found = re.findall(
        rf'^grpc_server_started_total{{grpc_method="{method}".*}} (\d+)', metrics(etcd), re.M
    )
    return sum(map(int, found))


def lease_of_1_0_0(uri: str, owner: str = "engine-1", ttl: int = 0) -> int:
    """The id of the lease that version 1.0.0 writes under."""
    parsed = parse(uri)
    path = parsed.path.strip("/")
    prefix = f"/{path}" if path else ""
    layout = parsed.scheme.removesuffix("-tls")
    if layout == "skydns2":
        layout, prefix = "skydns", "/".join(["/skydns", *reversed(path.split("."))])
    ttl = ttl or 100 * 365 * 86_400
    digest = hashlib.sha256(f"{layout}\0{prefix}\0{owner}".encode()).digest()
    return int.from_bytes(digest[:7], "big") >> 1 << 8 | ttl % 256


def grant(etcd: Etcd, lease: int, ttl: int = 100 * 365 * 86_400) -> str:
    """Make a lease with this id. Returns the id as etcdctl takes it."""
    body = json.dumps({"ID": str(lease), "TTL": str(ttl)}).encode()
    url = f"http://{etcd.address}/v3/lease/grant"
    with urllib.request.urlopen(url, body, timeout=60) as answer:
        assert "error" not in json.load(answer)
    return f"{lease:x}"


def leads(etcd: Etcd) -> bool:
    """Whether this member is the leader."""
    return "\netcd_server_is_leader 1" in metrics(etcd)


def applied(etcd: Etcd) -> int:
    """How much of the cluster's log the member has carried out."""
    found = re.search(r"^etcd_server_proposals_applied_total (\S+)", metrics(etcd), re.M)
    assert found is not None
    return int(float(found[1]))


def metrics(etcd: Etcd) -> str:
    """The server's metrics as Prometheus reads them."""
    with urllib.request.urlopen(f"http://{etcd.address}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


class Backends:
    """Makes backends by URI and owner, and closes all of them."""

    def __init__(self) -> None:
        self.made: list[Backend] = []

    def __call__(
        self,
        uri: str,
        owner: str = "engine-1",
        ttl: float = 0,
        timeout: float = 60.0,
        environ: Mapping[str, str] | None = None,
        wake: Callable[[], None] = lambda: None,
        wake_soon: Callable[[], None] = lambda: None,
        host: str = "host",
        former: tuple[str, ...] = (),
    ) -> Backend:
        parsed = parse(uri)
        identity = Identity(owner, host, former)
        context = Context(
            parsed, identity, ttl, ttl / 3, timeout, environ or {}, wake, wake_soon
        )  # fmt: skip
        self.made.append(load(parsed.scheme)(context))
        return self.made[-1]

    def close(self) -> None:
        for backend in self.made:
            backend.close()
