"""One HTTP exchange: what goes out in which packets, and what becomes of the connection."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
import urllib3
from urllib3.connection import HTTPConnection

from registrator.http import exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers over sockets that keep the limits of what each call sends: one call, one packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.answers: list[bytes] = []
        self.sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """The client's end of a new connection."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sockets.append(theirs)
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def _serve(self, sock: socket.socket) -> None:
        # The client may close its end at any moment.
        with contextlib.suppress(OSError):
            while packet := sock.recv(1 << 20):
                self.packets.append(packet)
                if self.answers:
                    sock.sendall(self.answers.pop(0))


class Pool(urllib3.HTTPConnectionPool):
    """A pool whose connections lead to a server of this module."""

    def __init__(self, server: Server) -> None:
        super().__init__("localhost", maxsize=2)
        self.server = server

    def _new_conn(self) -> HTTPConnection:
        made = HTTPConnection("localhost")
        made.connect = lambda: setattr(made, "sock", self.server.connect())  # type: ignore[method-assign]
        return made


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    for each in made.sockets:
        each.close()


def test_head_and_body_leave_in_one_packet_over_one_connection(server: Server) -> None:
    server.answers = [OK, OK]
    pool = Pool(server)
    for body in (b'{"ID": "a"}', None):
        answer = exchange(pool, "PUT", "/v1/x", {"Host": "h:1"}, body, wait=60)
        assert (answer.status, answer.data) == (200, b"ok")
    assert server.packets == [
        b'PUT /v1/x HTTP/1.1\r\nHost: h:1\r\nContent-Length: 11\r\n\r\n{"ID": "a"}',
        b"PUT /v1/x HTTP/1.1\r\nHost: h:1\r\n\r\n",
    ]
    assert len(server.sockets) == 1
    pool.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["the server says so", "an old version"],
)
def test_a_connection_that_the_server_will_close_is_not_used_again(
    answer: bytes, server: Server
) -> None:
    server.answers = [answer, OK]
    pool = Pool(server)
    for _ in range(2):
        assert exchange(pool, "GET", "/", {"Host": "h"}, wait=60).data == b"ok"
    assert len(server.sockets) == 2
    pool.close()


def test_half_an_answer_is_none() -> None:
    class Cutting(Server):
        def _serve(self, sock: socket.socket) -> None:
            sock.recv(1 << 20)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")
            sock.close()

    pool = Pool(Cutting())
    with pytest.raises(http.client.IncompleteRead):
        exchange(pool, "GET", "/", {"Host": "h"}, wait=60)
    pool.close()


def test_a_connection_without_an_answer_in_time_is_not_used_again(server: Server) -> None:
    """The late answer would be taken for that to the next request."""
    pool = Pool(server)
    with pytest.raises(TimeoutError):
        exchange(pool, "GET", "/", {"Host": "h"}, wait=0.01)
    server.answers = [OK]
    assert exchange(pool, "GET", "/", {"Host": "h"}, wait=60).data == b"ok"
    assert len(server.sockets) == 2
    pool.close()


def test_an_answer_that_takes_too_long_as_a_whole_ends(server: Server) -> None:
    server.answers = [OK]
    pool = Pool(server)
    with pytest.raises(TimeoutError):
        exchange(pool, "GET", "/", {"Host": "h"}, wait=60, limit=0)
    pool.close()
