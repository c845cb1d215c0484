"""TLS over the years: certificates end and are replaced, and private authorities make plain ones.

The servers' own certificates have no Authority Key Identifier (see `conftest`).
"""

from __future__ import annotations

import shutil
import ssl
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.proxy import TCPProxy
from support.wait import until

from contract.conftest import Servers
from contract.kinds import TLS, over
from contract.registry import OWNER, Registry, ours, reconcile, service
from registrator.backend import Backend, BackendError, Unavailable
from registrator.uri import parse

SHORT = timedelta(seconds=10)


@pytest.fixture
def files(registry: Registry, tmp_path: Path) -> dict[str, Path]:
    """The registry's TLS files as this test's own: by ``ca``, ``cert`` and ``key``."""
    copies = {}
    for name, (variable, path) in zip(("ca", "cert", "key"), registry.environ.items(), strict=True):
        copies[name] = Path(shutil.copy(path, tmp_path / f"own-{name}.pem"))
        registry.environ = {**registry.environ, variable: str(copies[name])}
    return copies


class Behind:
    """A backend behind a proxy at the server's own address: a cut asks for a handshake."""

    def __init__(self, registry: Registry) -> None:
        server = parse(registry.uri()).addresses[0]
        self.proxy = TCPProxy(str(server), server.host)
        plain = registry.uri
        registry.uri = lambda *before: plain(*before).replace(  # type: ignore[method-assign]
            str(server), self.proxy.address
        )
        self.backend: Backend = registry.make(OWNER, timeout=2)

    def write(self) -> None:
        """Write the entry, however long a busy server takes for the first handshake."""
        write = partial(reconcile, self.backend, service())
        until(write, "a first write", ignore=(BackendError,))

    def again(self) -> bool:
        """Whether a listing after a new handshake finds the entry."""
        self.proxy.cut()
        return len(ours(self.backend)) == 1

    def refused(self) -> bool:
        """Whether a new handshake fails."""
        self.proxy.cut()
        try:
            self.backend.list()
        except BackendError:
            try:
                self.backend.list()
            except BackendError:
                return True
        return False


@over(TLS)
def test_certificates_that_end_are_replaced_without_a_restart(
    registry: Registry, servers: Servers, files: dict[str, Path]
) -> None:
    def renew(lasts: timedelta) -> float:
        """Put a new certificate and key in place. Returns when they end."""
        cert, key = servers.authority.issue("short", lasts=lasts)
        for name, path in (("cert", cert), ("key", key)):
            shutil.move(path, files[name])
        return time.time() + lasts.total_seconds()

    ends: list[float] = []
    behind = Behind(registry)

    def again_with_a_short_one() -> bool:
        ends.append(renew(SHORT))
        return behind.again()

    try:
        behind.write()
        until(again_with_a_short_one, "a handshake before its end", ignore=(BackendError,))
        until(lambda: time.time() > ends[-1] + 1, "the certificate's end")
        until(behind.refused, "a refusal of what has ended")
        renew(timedelta(days=1))
        until(behind.again, "a handshake with the new one", ignore=(BackendError,))
    finally:
        behind.proxy.close()


@over(TLS)
def test_another_authority_counts_without_a_restart(
    registry: Registry, files: dict[str, Path], tmp_path: Path
) -> None:
    right = files["ca"].read_bytes()
    behind = Behind(registry)
    try:
        behind.write()
        shutil.copy(Authority(tmp_path / "other").ca, files["ca"])
        until(behind.refused, "a refusal of the server")
        files["ca"].write_bytes(right)
        until(behind.again, "a handshake", ignore=(BackendError,))
    finally:
        behind.proxy.close()


@over(TLS)
def test_files_that_are_of_no_use_for_a_while_are_named(
    registry: Registry, files: dict[str, Path]
) -> None:
    """As while somebody writes them. The agent goes on as soon as they are whole.

    One listing may still succeed: gRPC may connect again by itself, with the files that it has
    read, before it tells the backend that the connection ended.
    """
    right = files["key"].read_bytes()
    behind = Behind(registry)

    def told() -> bool:
        behind.proxy.cut()
        try:
            behind.backend.list()
        except BackendError as error:
            return isinstance(error, Unavailable) and "certificate" in str(error)
        return False

    try:
        behind.write()
        files["key"].write_bytes(b"")
        until(told, "what is wrong")
        files["key"].write_bytes(right)
        until(behind.again, "a handshake", ignore=(BackendError,))
    finally:
        behind.proxy.close()


@over(TLS)
def test_an_authority_without_key_identifiers_is_accepted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python sets this flag from 3.13 on. Consul, etcd, curl and Java never ask for so much."""
    as_here = ssl.create_default_context

    def as_in_3_13(*args: Any, **options: Any) -> ssl.SSLContext:
        made = as_here(*args, **options)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", as_in_3_13)
    backend = registry.make()
    reconcile(backend, service())
    assert len(ours(backend)) == 1
