"""The connection to an etcd cluster: failover, and a time limit on every call.

There is one channel at a time, to one server. The client stays with a server that works. If the
server fails, the client moves to the next one at once.
"""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from registrator.backend import ConfigError, Context, Unavailable
from registrator.uri import Address, resolve

from ..common.in_use import InUse
from ..common.order import Order
from . import rpc
from .login import Login
from .rpc import Code, Refused, etcdrpc, grpc
from .settings import certificates

log = logging.getLogger("registrator.etcd")

STATUS = rpc.unary("Maintenance", "Status")
WATCH = rpc.stream("Watch", "Watch")

DEFAULT_PORT = 2379

_CHANNEL_OPTIONS = (
    # Otherwise a new channel inherits the connection and the waiting time of a failed one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", -1),
)


class Server(NamedTuple):
    """A server's IP address, and the host name that its certificate must match."""

    ip: Address
    name: str


class EtcdClient:
    """One etcd cluster. It raises `Unavailable` only after every address failed.

    A client with a `login` is a spare one of the client whose login that is. It logs nothing, and
    does not wake the reconciler when its connection ends.
    """

    def __init__(self, context: Context, login: Login | None = None) -> None:
        """Read addresses, certificates and credentials. Raises `ConfigError`. Opens nothing."""
        self._addresses = context.uri.servers(DEFAULT_PORT)
        self._timeout = context.timeout
        self._context = context
        self._order = Order(context)
        self._spare = login is not None
        self._tls = context.uri.scheme.endswith("-tls")
        if self._tls:
            certificates(context.environ)
        self.login = login or Login(context)
        self._channel: Any = None
        self._server: Server | None = None
        self._first: Address | None = None
        self._mute: dict[Server, float] = {}
        self._ended = threading.Event()
        self._in_use = InUse(context.uri, log, context.serves)
        # Why the last connection ended. Empty once an error or a log line says it.
        self._end_to_log = ""

    def call(self, method: rpc.Rpc, request: Any) -> Any:
        """Send `request` to the first server that works, and return its answer.

        Raises `Refused` if a server refuses, and `Unavailable` if none answers in time.
        """
        failures: list[str] = []
        if self._server is not None and self._ended.is_set():
            self._drop(f"{self._server.ip}: the connection was closed")
        for server in self._servers(failures):
            deadline = time.monotonic() + self._timeout
            try:
                if self._channel is None:
                    self._connect(server, deadline)
                return self._send(method, request, deadline)
            except grpc.RpcError as error:
                if rpc.refuses(error):
                    raise Refused(error.code(), f"{server.ip}: {rpc.refusal(error)}") from None
                if error.code() is Code.DEADLINE_EXCEEDED:
                    self._mute[server] = time.monotonic() + self._timeout
                    self.login.forget()
                why = rpc.reason(error, self._timeout, connecting=self._server is None)
                failures.append(f"{server.ip}: {why}")
                self._drop(failures[-1])
        self._end_to_log = ""
        raise Unavailable("; ".join(failures))

    def close(self) -> None:
        """Close the channel, if one is open."""
        self._ended.set()
        if self._channel is not None:
            self._channel.close()
        self._channel = self._server = None

    def _servers(self, failures: list[str]) -> Iterator[Server]:
        """Every server once: the current one first, then the others in this owner's order.

        A server that just did not answer in time is skipped for as long, unless all are like that.
        During an election, the others say at once that they have no leader. So the next pass
        comes soon, and must not wait for a frozen server each time. A name is resolved when its
        turn comes, so that members added to the DNS are found.
        """
        current = self._server
        if current is not None:
            yield current
        tried = {current} if current is not None else set()
        mute: list[Server] = []
        addresses = self._order(self._addresses)
        first = addresses.index(self._first) if self._first else 0
        for address in addresses[first:] + addresses[:first]:
            for server in self._resolved(address, failures):
                if server in tried:
                    continue
                tried.add(server)
                if self._mute.get(server, 0) > time.monotonic():
                    mute.append(server)
                    continue
                self._first = address
                yield server
        if len(mute) == len(tried):
            yield from mute
        else:
            failures.extend(f"{server.ip}: gave no answer a moment ago" for server in mute)

    def _resolved(self, address: Address, failures: list[str]) -> list[Server]:
        try:
            ips = self._order(resolve(address, self._timeout))
            return [Server(ip, address.host) for ip in ips]
        except OSError as error:
            failures.append(str(error))
            return []

    def _connect(self, server: Server, deadline: float) -> None:
        try:
            self._channel = self._open(server)
            self.login.ensure(self._channel, _left(deadline))
            details = "" if self._spare else self._version(deadline)
        except BaseException:
            self.close()
            raise
        self._server = server
        if self._spare:
            return
        self._notice_the_end()
        self._in_use.connected(str(server.ip), details, self._end_to_log)
        self._end_to_log = ""

    def _open(self, server: Server) -> Any:
        """A new channel. It reads the certificates again, as they may be renewed."""
        ip = server.ip
        host = f"ipv6:[{ip.host.replace('%', '%25')}]" if ":" in ip.host else f"ipv4:{ip.host}"
        options: list[tuple[str, int | str]] = [*_CHANNEL_OPTIONS]
        if server.name != ip.host:
            options.append(("grpc.ssl_target_name_override", server.name))
        target = f"{host}:{ip.port}"
        if not self._tls:
            return grpc.insecure_channel(target, options)
        try:
            files = certificates(self._context.environ)
        except (ConfigError, OSError) as error:
            raise Unavailable(str(error)) from None
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(**files), options)

    def _version(self, deadline: float) -> str:
        """The server's version and leader for the log. Some versions tell them to root alone."""
        request = etcdrpc.StatusRequest()
        try:
            status = self._send(STATUS, request, deadline)
        except grpc.RpcError as error:
            if not rpc.refuses(error):
                raise
            return "etcd"
        return f"etcd {status.version}, leader {status.leader:x}"

    def _notice_the_end(self) -> None:
        """Wake the reconciler soon when this connection ends: the server may have been wiped.

        A stream of watches without a watch sends no request. It ends with the connection, or when
        the server has had no leader for some seconds.
        """
        ended = self._ended = threading.Event()

        def no_requests() -> Iterator[Any]:
            ended.wait()
            yield from ()

        def over(stream: Any) -> None:
            if not ended.is_set() and not rpc.refuses(stream):
                ended.set()
                self._context.wake_soon()

        stream = WATCH(self._channel, no_requests(), metadata=self.login.metadata)
        stream.add_done_callback(over)

    def _send(self, method: rpc.Rpc, request: Any, deadline: float) -> Any:
        try:
            return self._exchange(method, request, deadline)
        except grpc.RpcError as error:
            if not self.login.wanted(error):
                raise
        self.login.renew(self._channel, _left(deadline))
        return self._exchange(method, request, deadline)

    def _exchange(self, method: rpc.Rpc, request: Any, deadline: float) -> Any:
        metadata = self.login.metadata
        return method(self._channel, request, timeout=_left(deadline), metadata=metadata)

    def _drop(self, failure: str) -> None:
        if self._server is not None:
            self._end_to_log = failure
        self.close()


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
