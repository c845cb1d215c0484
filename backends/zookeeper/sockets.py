"""Sockets for kazoo: connecting has a time limit, and another thread can cut a connection."""

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from kazoo.exceptions import AuthFailedError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.handlers.utils import selector_select

from registrator.uri import Address

from ..common.tls import Client, reason

# The fault of a connection that a member accepted and then did not serve, or closed.
MUTE = "connected, but not served: it is frozen, has no quorum, or is not a ZooKeeper"

# What kazoo raises when it reads an answer that it does not understand.
MALFORMED = (struct.error, LookupError, RuntimeError, ValueError)

# kazoo waits four times per request, each time with a new selector. This kind needs no system call
# to make. That saves a third of a request's processor time.
CHEAP = SimpleNamespace(
    DefaultSelector=selectors.PollSelector,
    EVENT_READ=selectors.EVENT_READ,
    EVENT_WRITE=selectors.EVENT_WRITE,
)


def malformed(error: Exception) -> str:
    """The text for such an error."""
    return f"its answer is not in ZooKeeper's format ({type(error).__name__}: {error})"


class Sockets(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads and sockets. Another thread can cut a connection.

    `timeout` (seconds) limits each connect and TLS handshake, so that an address that drops packets
    does not use up the session timeout. `error` says why the last attempt failed. `opened` counts
    the connections that were opened.
    """

    def __init__(self, timeout: float, tls: Client | None) -> None:
        super().__init__()
        self.error = ""
        self.opened = 0
        self._errors: dict[Address, str] = {}
        # The last answer of `failures`.
        self._told: dict[Address, str] = {}
        self._timeout = timeout
        self._tls = tls
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._address: Address | None = None
        self._shunned: Address | None = None
        self._left = False

    def spawn(self, func: Callable[..., None], *args: object, **kwargs: object) -> threading.Thread:
        """Start a thread for kazoo. It ends, with its client, if it reads a malformed answer."""

        def guarded() -> None:
            try:
                func(*args, **kwargs)
            except MALFORMED as error:
                if self._address is None:
                    raise
                self._note(self._address, malformed(error))

        thread: threading.Thread = super().spawn(guarded)
        return thread

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, **_: object
    ) -> socket.socket:
        """Connect for kazoo. This ignores kazoo's TLS options and uses our own."""
        address = Address(*address)
        with self._lock:
            shunned, self._shunned = self._shunned, None
        if address == shunned:
            raise TimeoutError("skipped once, because it did not answer in time")
        with self._lock:
            # This is the answer to `failures` until the attempt ends.
            self._errors.setdefault(address, self._why(TimeoutError()))
        try:
            opened = self._open(address, hostname)
        except OSError as error:
            self._note(address, self._why(error))
            raise
        with self._lock:
            if self._left:
                opened.close()
                # After this error, and no other, kazoo stops by itself.
                raise AuthFailedError
            self._socket, self._address = opened, address
        self._note(address, MUTE)
        self.opened += 1
        return opened

    @property
    def address(self) -> str:
        """The member of the last connection."""
        return str(self._address)

    def failures(self) -> str:
        """Why attempts failed since the last call, with their addresses.

        kazoo pauses between two attempts. If there was none, the answer is the last one again.
        """
        with self._lock:
            self._told, self._errors = self._errors or self._told, {}
            return _shown(self._told)

    def connected(self) -> str:
        """Why attempts failed before this connection. The address that serves now is left out."""
        with self._lock:
            found = {a: error for a, error in self._errors.items() if a != self._address}
            self._told, self._errors = {}, {}
            return _shown(found)

    def _note(self, address: Address, error: str) -> None:
        with self._lock:
            self.error = self._errors[address] = error

    def _why(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLError):
            return reason(error)
        if isinstance(error, TimeoutError):
            return f"no connection within {self._timeout:g} s"
        return error.strerror or str(error)

    def _open(self, address: Address, hostname: str | None) -> socket.socket:
        if self._left:
            raise AuthFailedError
        context = self._tls.handshake() if self._tls else None
        # kazoo has resolved the name, so there is one answer.
        family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            if context is not None:
                # Before it is connected: Python leaves a socket open that is reset in between.
                made = context.wrap_socket(made, server_hostname=hostname)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(self._timeout)
            made.connect(place)
        except BaseException:
            made.close()
            raise
        return made

    def select(
        self, reading: list[Any], writing: list[Any], failing: list[Any], timeout: float | None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait for sockets, as `select.select` does.

        One TLS record may contain several answers. The system does not know of the rest, which is
        in the socket's buffer.
        """
        buffered = [s for s in reading if isinstance(s, ssl.SSLSocket) and s.pending()]
        patience = 0 if buffered else timeout
        ready = selector_select(reading, writing, failing, patience, selectors_module=CHEAP)
        return [*buffered, *(s for s in ready[0] if s not in buffered)], ready[1], ready[2]

    def cut(self) -> None:
        """End the connection as if the member had, and skip that member at the next attempt."""
        with self._lock:
            current, self._shunned = self._socket, self._address
        if current is not None:
            # The shutdown of a TLS socket would remove state that the reading thread needs. An
            # error means that the connection has ended already.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(current, socket.SHUT_RDWR)

    def leave(self) -> None:
        """End the connection for good. ZooKeeper is not told, so the session stands."""
        with self._lock:
            self._left = True
        self.cut()


def _shown(errors: Mapping[Address, str]) -> str:
    return "; ".join(f"{address}: {error}" for address, error in errors.items())
