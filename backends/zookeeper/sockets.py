"""kazoo's sockets, mended: connecting has a deadline, and a connection can be cut from outside."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from kazoo.exceptions import AuthFailedError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.handlers.utils import selector_select

from registrator.uri import Address

from ..common.tls import reason

# Why a connection came to nothing: the member took it and then said nothing, or closed it.
MUTE = "connected, but not served: it is frozen, has no quorum, or is no ZooKeeper"

# kazoo waits four times a request, each time with a selector of its own. Of all kinds this one is
# made without a system call: that takes a third off the processor time of a request.
CHEAP = SimpleNamespace(
    DefaultSelector=selectors.PollSelector,
    EVENT_READ=selectors.EVENT_READ,
    EVENT_WRITE=selectors.EVENT_WRITE,
)


class Sockets(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads and sockets, where a connection can be cut from outside.

    `deadline` (seconds) bounds every connecting and TLS handshake, so that an address that drops
    packets does not use up the session timeout. `error` tells why the last attempt failed, `opened`
    counts those that did not.
    """

    def __init__(self, deadline: float, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self.error = ""
        self.opened = 0
        self._errors: dict[Address, str] = {}
        self._deadline = deadline
        self._tls = tls
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._address: Address | None = None
        self._shunned: Address | None = None
        self._left = False

    def spawn(self, func: Callable[..., None], *args: object, **kwargs: object) -> threading.Thread:
        """Start a thread for kazoo; one that reads what is no answer ends, with its client."""

        def guarded() -> None:
            try:
                func(*args, **kwargs)
            except (struct.error, LookupError, RuntimeError, ValueError) as error:
                if self._address is None:
                    raise
                what = f"it answered what ZooKeeper does not say ({type(error).__name__}: {error})"
                self._note(self._address, what)

        thread: threading.Thread = super().spawn(guarded)
        return thread

    def create_connection(
        self, address: tuple[str, int], hostname: str | None = None, **_: object
    ) -> socket.socket:
        """Connect for kazoo; what it says of TLS is left aside for our own context."""
        address = Address(*address)
        with self._lock:
            shunned, self._shunned = self._shunned, None
        if address == shunned:
            raise TimeoutError("passed over once: it did not answer in time")
        with self._lock:
            # Whoever asks before this attempt has come to its end is told so.
            self._errors.setdefault(address, self._why(TimeoutError()))
        try:
            opened = self._open(address, hostname)
        except OSError as error:
            self._note(address, self._why(error))
            raise
        with self._lock:
            if self._left:
                opened.close()
                # Of all errors this is the one after which kazoo stops of its own accord.
                raise AuthFailedError
            self._socket, self._address = opened, address
        self._note(address, MUTE)
        self.opened += 1
        return opened

    @property
    def address(self) -> str:
        """The member that was connected to last."""
        return str(self._address)

    def failures(self) -> str:
        """Why each attempt failed since this was asked for last, by address."""
        with self._lock:
            found, self._errors = self._errors, {}
        return "; ".join(f"{address}: {error}" for address, error in found.items())

    def connected(self) -> str:
        """The same once a connection serves: the others' failures."""
        with self._lock:
            self._errors = {a: error for a, error in self._errors.items() if a != self._address}
        return self.failures()

    def _note(self, address: Address, error: str) -> None:
        with self._lock:
            self.error = self._errors[address] = error

    def _why(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLError):
            return reason(error)
        if isinstance(error, TimeoutError):
            return f"no connection within {self._deadline:g} s"
        return error.strerror or str(error)

    def _open(self, address: Address, hostname: str | None) -> socket.socket:
        if self._left:
            raise AuthFailedError
        plain = socket.create_connection(address, self._deadline)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return plain
        try:
            return self._tls.wrap_socket(plain, server_hostname=hostname)
        except BaseException:
            plain.close()
            raise

    def select(
        self, reading: list[Any], writing: list[Any], failing: list[Any], timeout: float | None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait for sockets, as `select.select` does.

        Several answers may come in one TLS record: the rest of it is in the socket's buffer, of
        which the system knows nothing.
        """
        buffered = [s for s in reading if isinstance(s, ssl.SSLSocket) and s.pending()]
        patience = 0 if buffered else timeout
        ready = selector_select(reading, writing, failing, patience, selectors_module=CHEAP)
        return [*buffered, *(s for s in ready[0] if s not in buffered)], ready[1], ready[2]

    def cut(self) -> None:
        """End the present connection as if the member had, and pass it over at the next attempt."""
        with self._lock:
            current, self._shunned = self._socket, self._address
        if current is not None:
            # The plain shutdown: that of a TLS socket takes its state away from the reading thread.
            # An error says that it has ended already.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(current, socket.SHUT_RDWR)

    def leave(self) -> None:
        """End the connection for good; the ensemble is told nothing, so the session stands."""
        with self._lock:
            self._left = True
        self.cut()
