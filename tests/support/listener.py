"""A listener in this process, and clients of any kind."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registrator.health import Health
from registrator.listener.addresses import ListenAddress
from registrator.listener.listener import Listener
from registrator.status.board import Board
from support.servers import free_ports, loopback_ip
from support.wait import DEADLINE, until


class Serving:
    """A listener with both doors, and what it tells of."""

    def __init__(self, host: str = "", port: int = 0) -> None:
        self.board = Board(["consul://h:8500"])
        self.health = Health()
        self.host = host or loopback_ip()
        self.port = port or free_ports(self.host, 1)[0]
        address = ListenAddress(self.host, self.port)
        self.listener = Listener(address, self.board, self.health)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.listener.run, args=(self.stop,), daemon=True)

    def connect(self) -> socket.socket:
        """A client that has sent nothing yet."""
        return socket.create_connection((self.host, self.port), timeout=DEADLINE)

    def send(self, sent: bytes) -> bytes:
        """All that the listener answers to these bytes. Empty if it only closes."""
        with self.connect() as client:
            with suppress(OSError):
                client.sendall(sent)
            return received(client)

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, bytes, bytes]:
        """The status, the head and the body of the answer to an ordinary request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", *headers, "", ""]
        answer = self.send("\r\n".join(lines).encode("latin-1"))
        head, _, body = answer.partition(b"\r\n\r\n")
        return status(answer), head, body


def received(client: socket.socket) -> bytes:
    """All that comes until the other side closes or resets."""
    found = b""
    with suppress(ConnectionError):
        while got := client.recv(65536):
            found += got
    return found


def status(answer: bytes) -> int:
    """The status of an answer, or 0 if there is none."""
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(match[1]) if match else 0


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def serving(host: str = "", port: int = 0) -> Iterator[Serving]:
    """A listener that runs, until the end of the block."""
    made = Serving(host, port)
    made.thread.start()
    try:
        until(lambda: made.get("/livez"), "the listener", ignore=(OSError,))
        yield made
    finally:
        made.stop.set()
        made.listener.wake()
        made.thread.join(DEADLINE)
        made.health.close()
        assert not made.thread.is_alive()
