"""A minimal client of HTTP/1.1: kept-alive connections, whole answers, no parsing.

The benchmarks measure the floors with it. They also read registries with it at little cost.
"""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Sequence
from pathlib import Path

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
Where = Path | str


class Client:
    """One connection to a unix socket (a `Path`) or to ``host:port``."""

    def __init__(self, where: Where) -> None:
        if isinstance(where, Path):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(where))
        else:
            host, _, port = where.rpartition(":")
            self.sock = socket.create_connection((host, int(port)))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(60)

    def send(self, data: bytes) -> None:
        """Send a request (see `request`)."""
        self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The status and the body of the next answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = LENGTH.search(head)
        parts = [rest]
        if length is None and b"chunked" in head:
            while not parts[-1].endswith(b"0\r\n\r\n"):
                parts.append(self._more())
            return status, _unchunked(b"".join(parts))
        left = int(length[1]) - len(rest) if length else 0
        while left > 0:
            parts.append(self._more())
            left -= len(parts[-1])
        return status, b"".join(parts)

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer."""
        self.send(data)
        return self.receive()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _more(self) -> bytes:
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def _unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        out, data = out + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return out


def request(method: str, target: str, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    return (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def all_of(where: Where, requests: Sequence[bytes], connections: int) -> None:
    """Send all requests over several connections at once. Raises if a server refuses one."""
    clients = [Client(where) for _ in range(min(connections, len(requests)))]
    left = iter(requests)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send(next(left))
        busy = len(clients)
        while busy:
            for key, _ in selector.select(60):
                status, body = key.data.receive()
                if status != 200:
                    raise RuntimeError(f"status {status}: {body[:200]!r}")
                following = next(left, None)
                if following is None:
                    busy -= 1
                else:
                    key.data.send(following)
    for client in clients:
        client.close()
