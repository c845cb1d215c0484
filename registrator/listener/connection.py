"""One client: it sends one request, gets one answer, and is closed. No call here waits."""

import socket
from collections.abc import Callable
from enum import Enum

from registrator.listener.requests import END, MAX_HEAD, Refused

# Seconds that a client has in all, and those in which it may go on to send what nobody reads.
# If a socket is closed before that, the client may lose the answer.
IN_ALL, LINGER = 10.0, 1.0
MAX_DISCARDED = 256 * 1024


class Wants(Enum):
    """The thing that a connection waits for."""

    TO_READ = "to read"
    TO_WRITE = "to write"
    NOTHING = "to be closed"


class Connection:
    """One connection, from the moment `now`. `answer` gives the answer to a request's head.

    `refuse` gives that to a head which is not read. `deadline` is when the connection is closed.
    """

    def __init__(
        self,
        client: socket.socket,
        answer: Callable[[bytes], bytes],
        refuse: Callable[[Refused], bytes],
        now: float,
    ) -> None:
        client.setblocking(False)
        self.socket = client
        self.deadline = now + IN_ALL
        self._answer = answer
        self._refuse = refuse
        self._head = bytearray()
        self._left: memoryview | None = None  # of the answer
        self._lingers = False
        self._discarded = 0

    def go_on(self, now: float) -> Wants:
        """Do what can be done at once."""
        try:
            return self._go_on(now)
        except (BlockingIOError, InterruptedError):
            return Wants.TO_READ if self._left is None or self._lingers else Wants.TO_WRITE
        except OSError:
            return Wants.NOTHING  # The client is gone.

    def _go_on(self, now: float) -> Wants:
        if self._lingers:
            return self._discard()
        if self._left is None and not self._read():
            return Wants.NOTHING
        if self._left is None:
            return Wants.TO_READ
        self._left = self._left[self.socket.send(self._left) :]
        if self._left:
            return Wants.TO_WRITE
        self._left.release()
        self._left = memoryview(b"")
        self.socket.shutdown(socket.SHUT_WR)
        self._lingers = True
        self.deadline = min(self.deadline, now + LINGER)
        return Wants.TO_READ

    def _read(self) -> bool:
        """Read some of the head, and have it answered if it is complete. False at the end."""
        got = self.socket.recv(MAX_HEAD + 1 - len(self._head))
        self._head += got
        end = self._head.find(END)
        if end >= 0:
            self._left = memoryview(self._answer(bytes(self._head[:end])))
        elif len(self._head) > MAX_HEAD:
            why = Refused(431, f"the head of a request may have {MAX_HEAD} bytes")
            self._left = memoryview(self._refuse(why))
        return bool(got)

    def _discard(self) -> Wants:
        """Read what nobody wants, but not for ever."""
        got = len(self.socket.recv(65536))
        self._discarded += got
        return Wants.TO_READ if got and self._discarded < MAX_DISCARDED else Wants.NOTHING
