"""A connection to an etcd cluster: any number of addresses, a deadline on every call, logins.

Every address has a channel of its own, and only one channel is open at a time: it stays with the
server that works, and goes on to the next at once when that one fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from registrator.backend import ConfigError, Context, Unavailable
from registrator.uri import Address, resolve

from ..common.in_use import InUse
from .rpc import (
    REFUSALS,
    Code,
    Refused,
    Rpc,
    etcd3,
    etcdrpc,
    grpc,
    reason,
    refusal,
    unary,
    wants_login,
)
from .settings import certificates, credentials

log = logging.getLogger("registrator.etcd")

DEFAULT_PORT = 2379

_CHANNEL_OPTIONS = (
    # Without it a new channel inherits the connection, and the waiting time, of one that failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", -1),
)
# A member that knows of no leader answers at once instead of waiting for one.
_REQUIRE_LEADER: tuple[tuple[str, str], ...] = (("hasleader", "true"),)


class Server(NamedTuple):
    """A server at an IP address, and the host name that its certificate is checked against."""

    ip: Address
    name: str


class EtcdClient:
    """One etcd cluster. Raises `Unavailable` only after every address has failed."""

    def __init__(self, context: Context, tls: bool) -> None:
        """Read addresses, certificates and credentials; raises `ConfigError`, connects nowhere."""
        self._addresses = context.uri.servers(DEFAULT_PORT)
        self._timeout = context.timeout
        self._context = context
        self._tls = certificates(context.environ) if tls else {}
        self._user = credentials(context)[0]
        self._metadata = _REQUIRE_LEADER
        self._client: Any = None
        self._server: Server | None = None
        self._first = 0
        self._mute: dict[Server, float] = {}
        self._ended = threading.Event()
        self._in_use = InUse(context.uri, log)
        # Why the last connection ended, until an error or the next connection tells of it.
        self._untold = ""

    def call(self, rpc: Rpc, request: Any) -> Any:
        """Send `request` to the server that works, or the next that does, and return its answer.

        Raises `Refused` where a server says no, `Unavailable` where none answered in time.
        """
        failures: list[str] = []
        if self._server is not None and self._ended.is_set():
            self._drop(f"{self._server.ip}: the connection was closed")
        for server in self._servers(failures):
            deadline = time.monotonic() + self._timeout
            try:
                if self._client is None:
                    self._connect(server, deadline)
                return self._send(rpc, request, deadline)
            except grpc.RpcError as error:
                if error.code() in REFUSALS:
                    raise Refused(error.code(), f"{server.ip}: {refusal(error)}") from None
                if error.code() is Code.DEADLINE_EXCEEDED:
                    self._mute[server] = time.monotonic() + self._timeout
                failures.append(
                    f"{server.ip}: {reason(error, self._timeout, connecting=self._server is None)}"
                )
                self._drop(failures[-1])
        self._untold = ""
        raise Unavailable("; ".join(failures))

    def close(self) -> None:
        """Close the channel, if one is open."""
        self._ended.set()
        if self._client is not None:
            self._client.close()
        self._client = self._server = None

    def _servers(self, failures: list[str]) -> Iterator[Server]:
        """Every server once: the current one, then the others, from its address on.

        One that has just let a deadline pass is left out for as long, unless all have: the others
        may say at once that they are still electing a leader, and be asked again soon. Names are
        resolved when it comes to them, so that members added to the DNS are found.
        """
        current, first = self._server, self._first
        if current is not None:
            yield current
        tried = {current} if current is not None else set()
        mute: list[Server] = []
        for step in range(len(self._addresses)):
            index = (first + step) % len(self._addresses)
            for server in self._resolved(self._addresses[index], failures):
                if server in tried:
                    continue
                tried.add(server)
                if self._mute.get(server, 0) > time.monotonic():
                    mute.append(server)
                    continue
                self._first = index
                yield server
        if len(mute) == len(tried):
            yield from mute
        else:
            failures.extend(f"{server.ip}: gave no answer a moment ago" for server in mute)

    def _resolved(self, address: Address, failures: list[str]) -> list[Server]:
        try:
            return [Server(ip, address.host) for ip in resolve(address, self._timeout)]
        except OSError as error:
            failures.append(str(error))
            return []

    def _connect(self, server: Server, deadline: float) -> None:
        try:
            self._client = self._open(server)
            self._login(deadline)
            status = self._send(unary("maintenancestub.Status"), etcdrpc.StatusRequest(), deadline)
        except BaseException:
            self.close()
            raise
        self._server = server
        self._notice_the_end()
        details = f"etcd {status.version}, leader {status.leader:x}"
        self._in_use.connected(str(server.ip), details, self._untold)
        self._untold = ""

    def _open(self, server: Server) -> Any:
        """A client with a channel of its own; certificates are read again, for they are renewed."""
        ip = server.ip
        host = f"ipv6:[{ip.host.replace('%', '%25')}]" if ":" in ip.host else f"ipv4:{ip.host}"
        options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS]
        if server.name != ip.host:
            options.append(("grpc.ssl_target_name_override", server.name))
        try:
            return etcd3.Etcd3Client(host=host, port=ip.port, grpc_options=options, **self._tls)
        except OSError as error:
            raise Unavailable(f"a certificate or key cannot be read: {error}") from None

    def _notice_the_end(self) -> None:
        """Have the entries listed when this connection ends: the server may have been wiped.

        A stream of watches that never watches anything costs no request, and ends with the
        connection, or when the server has been without a leader for some seconds.
        """
        ended = self._ended = threading.Event()

        def no_requests() -> Iterator[Any]:
            ended.wait()
            yield from ()

        def over(stream: Any) -> None:
            if not ended.is_set() and stream.code() not in REFUSALS:
                ended.set()
                self._context.wake()

        stream = etcdrpc.WatchStub(self._client.channel).Watch(
            no_requests(), metadata=self._metadata
        )
        stream.add_done_callback(over)

    def _send(self, rpc: Rpc, request: Any, deadline: float) -> Any:
        try:
            return rpc(self._client, request, timeout=_left(deadline), metadata=self._metadata)
        except grpc.RpcError as error:
            if not (self._user and wants_login(error)):
                raise
        self._login(deadline)
        return rpc(self._client, request, timeout=_left(deadline), metadata=self._metadata)

    def _login(self, deadline: float) -> None:
        """Get a new token; the password is read again, since its file may have changed."""
        self._metadata = _REQUIRE_LEADER
        try:
            user, password = credentials(self._context)
        except ConfigError as error:
            raise Unavailable(str(error)) from None
        if not user:
            return
        request = etcdrpc.AuthenticateRequest(name=user, password=password)
        stub = etcdrpc.AuthStub(self._client.channel)
        try:
            answer = stub.Authenticate(request, timeout=_left(deadline), metadata=self._metadata)
        except grpc.RpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return
            if error.code() in REFUSALS:
                raise Unavailable(f"etcd refuses user {user!r}: {error.details()}") from None
            raise
        self._metadata = (*_REQUIRE_LEADER, ("token", answer.token))

    def _drop(self, failure: str) -> None:
        if self._server is not None:
            self._untold = failure
        self.close()


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
