"""One client: how long it has, and how much of what nobody wants is read."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from registrator.listener.connection import IN_ALL, LINGER, MAX_DISCARDED, Connection, Wants


@pytest.fixture
def served() -> Iterator[tuple[Connection, socket.socket]]:
    ours, client = socket.socketpair()
    with ours, client:
        yield Connection(ours, lambda _: b"answer", lambda _: b"refusal", 100), client


def test_a_client_has_its_time_from_the_beginning(
    served: tuple[Connection, socket.socket],
) -> None:
    connection, client = served
    assert connection.go_on(105) is Wants.TO_READ
    client.sendall(b"GET")
    assert connection.go_on(109) is Wants.TO_READ
    assert connection.deadline == 100 + IN_ALL


def test_after_the_answer_it_has_a_little_more(served: tuple[Connection, socket.socket]) -> None:
    connection, client = served
    client.sendall(b"\r\n\r\n")
    assert connection.go_on(103) is Wants.TO_READ
    assert connection.deadline == 103 + LINGER
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b"", "it knows that this was all"
    client.close()
    assert connection.go_on(103) is Wants.NOTHING


def test_a_late_answer_adds_no_time(served: tuple[Connection, socket.socket]) -> None:
    connection, client = served
    client.sendall(b"\r\n\r\n")
    connection.go_on(100 + IN_ALL)
    assert connection.deadline == 100 + IN_ALL


def test_not_all_that_nobody_wants_is_read(served: tuple[Connection, socket.socket]) -> None:
    connection, client = served
    client.sendall(b"\r\n\r\n")
    connection.go_on(100)
    read = 0
    while connection.go_on(100) is Wants.TO_READ:
        assert read <= 2 * MAX_DISCARDED
        read += client.send(b"x" * 10_000)
    assert read >= MAX_DISCARDED
