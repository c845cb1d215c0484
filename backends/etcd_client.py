"""A connection to an etcd cluster: any number of addresses, a deadline on every call, logins.

Every address has a channel of its own, and only one channel is open at a time: it stays with the
server that works, and goes on to the next at once when that one fails. The etcd3 package gives
channel and messages; its own calls are not used, since they wait without limit for a server that
is frozen, know one address, and let a token expire.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from registrator.backend import ConfigError, Context, Unavailable
from registrator.uri import Address

from .etcd_settings import certificates, credentials

# The generated code of etcd3 loads with protobuf's Python implementation only, and calls what
# protobuf has deprecated. What gRPC would log by itself comes as an exception too.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import etcd3
    import grpc
    from etcd3 import etcdrpc as etcdrpc

log = logging.getLogger("registrator.etcd")

DEFAULT_PORT = 2379

Rpc = Callable[..., Any]
Code = grpc.StatusCode

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
# What a server says after having understood the request: any other server would say the same.
_REFUSALS = frozenset(
    {
        Code.ALREADY_EXISTS,
        Code.FAILED_PRECONDITION,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.OUT_OF_RANGE,
        Code.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
    }
)


class Refused(Unavailable):
    """A server understood the request and said no; `code` is gRPC's."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Server(NamedTuple):
    """A server at an IP address, and the host name that its certificate is checked against."""

    ip: Address
    name: str


def unary(path: str) -> Rpc:
    """The call with one request and one answer at `path`, as ``kvstub.Range``, of a client."""
    method = attrgetter(path)
    return lambda client, request, **options: method(client)(request, **options)


def keep_alive(client: Any, request: Any, **options: Any) -> Any:
    """Send a single request over a stream of lease keep-alives; an ended stream says TTL 0."""
    answers = client.leasestub.LeaseKeepAlive(iter([request]), **options)
    try:
        return next(answers, etcdrpc.LeaseKeepAliveResponse())
    finally:
        answers.cancel()


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

    def call(self, rpc: Rpc, request: Any) -> Any:
        """Send `request` to the server that works, or the next that does, and return its answer.

        Raises `Refused` where a server says no, `Unavailable` where none answered in time.
        """
        failures: list[str] = []
        if self._server is not None and self._ended.is_set():
            self._drop(f"{self._server.ip}: it was closed")
        for server in self._servers(failures):
            deadline = time.monotonic() + self._timeout
            try:
                if self._client is None:
                    self._connect(server, deadline)
                return self._send(rpc, request, deadline)
            except grpc.RpcError as error:
                if error.code() in _REFUSALS:
                    raise Refused(error.code(), f"{server.ip}: {error.details()}") from None
                if error.code() is Code.DEADLINE_EXCEEDED:
                    self._mute[server] = time.monotonic() + self._timeout
                failures.append(f"{server.ip}: {_reason(error)}")
                self._drop(failures[-1])
        raise Unavailable("no etcd server answers: " + "; ".join(failures))

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
        except (OSError, UnicodeError) as error:
            failures.append(f"{address}: {error}")
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
        log.info("connected to etcd %s at %s, leader %x", status.version, server.ip, status.leader)

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
            if not ended.is_set() and stream.code() not in _REFUSALS:
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
            if not (self._user and _wants_login(error)):
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
            if error.code() in _REFUSALS:
                raise Unavailable(f"etcd refuses user {user!r}: {error.details()}") from None
            raise
        self._metadata = (*_REQUIRE_LEADER, ("token", answer.token))

    def _drop(self, failure: str) -> None:
        if self._server is not None:
            log.warning("lost the connection to etcd (%s)", failure)
        self.close()


def resolve(address: Address, timeout: float) -> list[Address]:
    """The IP addresses of a host, in the resolver's order.

    Raises `OSError` or `UnicodeError` where there are none; it has no deadline of its own, so a
    thread does it, and is left behind when it takes longer than `timeout` seconds.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"the name is not resolved within {timeout:g} s") from None
    if isinstance(found, Exception):
        raise found
    return list(dict.fromkeys(Address(str(info[4][0]), address.port) for info in found))


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _reason(error: grpc.RpcError) -> str:
    if error.code() is Code.DEADLINE_EXCEEDED:
        return "no answer in time"
    text = error.details() or error.code().name
    return str(text.rpartition("last error: ")[2])


def _wants_login(error: grpc.RpcError) -> bool:
    """Whether a token is missing, has expired, or is older than the last change of the users."""
    details = error.details() or ""
    return (
        error.code() is Code.UNAUTHENTICATED
        or "auth store is old" in details
        or "user name is empty" in details
    )
