"""The listener in this process: what it answers, and how it bears with bad clients."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from support.listener import Serving, descriptors, received, serving, status
from support.servers import free_ports, loopback_ip
from support.wait import until

from registrator.health import MAX_AGE, Health
from registrator.listener import connection, listener
from registrator.listener.addresses import ListenAddress
from registrator.listener.answers import Answer
from registrator.listener.client import ask
from registrator.listener.listener import MAX_CLIENTS, Listener
from registrator.listener.requests import MAX_HEAD
from registrator.listener.site import Site
from registrator.model import Snapshot
from registrator.status.board import Board
from registrator.status.state import state


@pytest.fixture
def served() -> Iterator[Serving]:
    with serving() as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have a fraction of their time."""
    monkeypatch.setattr(connection, "IN_ALL", 0.3)


def test_it_tells_whether_the_agent_is_well(served: Serving) -> None:
    assert served.get("/livez")[::2] == (200, b"alive\n")
    assert served.get("/readyz")[::2] == (503, b"Docker engine: has not answered yet\n")
    served.board.engine.succeeded(version="20.10.24")
    assert served.get("/livez")[::2] == (200, b"alive\n")
    assert served.get("/readyz")[::2] == (503, b"consul://h:8500: not in sync\n")
    served.board.registries[0].realised(Snapshot(), {})
    assert served.get("/readyz")[::2] == (200, b"well\n")


def test_it_tells_that_the_main_thread_is_stuck(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.health.note([])
    now = time.monotonic()
    monkeypatch.setattr("registrator.listener.site.time.monotonic", lambda: now + MAX_AGE + 5)
    for path in ("/livez", "/readyz"):
        code, _, body = served.get(path)
        assert code == 503
        assert b"stuck" in body


def test_the_state_is_that_of_the_board(served: Serving) -> None:
    code, head, body = served.get("/api/state?now")
    assert code == 200
    assert json.loads(body) == json.loads(json.dumps(state(served.board)))
    assert b"Content-Type: application/json" in head
    assert b"Access-Control" not in head
    (tag,) = [line for line in head.decode().split("\r\n") if line.startswith("ETag: ")]
    answer = served.get("/api/state", f"If-None-Match: {tag.removeprefix('ETag: ')}")
    assert (answer[0], answer[2]) == (304, b"")
    assert tag.encode() in answer[1]


def test_head_gets_the_same_without_the_body(served: Serving) -> None:
    _, full, body = served.get("/api/state")
    assert body
    assert served.get("/api/state", method="HEAD") == (200, full, b"")


def test_what_does_not_exist_is_told_with_what_does(served: Serving) -> None:
    code, _, body = served.get("/nothing")
    assert code == 404
    assert body.startswith(b"there is /, /livez, /readyz, /metrics, /api/state")


def test_only_the_guarded_paths_ask_for_the_host(served: Serving) -> None:
    def asked(path: str, *headers: str) -> int:
        request = "\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""])
        return status(served.send(request.encode()))

    evil = "Host: evil.example"
    assert asked("/api/state", evil) == 421
    assert asked("/livez", evil) == 200
    other = "Sec-Fetch-Site: cross-site"
    assert asked("/api/state", "Host: localhost", other) == 403
    assert asked("/api/state", f"Host: {socket.gethostname()}") == 200
    served.board.tell_agent(hostname="web01")
    assert asked("/api/state", "Host: web01:80") == 200
    assert served.board.refused == 2


def test_a_bug_in_an_answer_is_logged_and_does_no_more_harm(
    served: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Site, "_livez", lambda *_: 1 / 0)
        patched.setattr(served.listener, "_site", None)
        assert served.get("/livez")[0] == 500
    served.listener._site = None
    assert "ZeroDivisionError" in caplog.text
    assert served.get("/livez")[0] == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n" + b"x" * 200_000, 405),
        (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"x" * (MAX_HEAD + 1), 431),
        (b"\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ],
)
def test_each_request_gets_one_answer(sent: bytes, code: int, served: Serving) -> None:
    answer = served.send(sent)
    assert status(answer) == code
    assert answer.count(b"HTTP/1.1 ") == 1
    assert served.board.refused == (code != 200)


def test_a_head_in_single_bytes_is_read(served: Serving) -> None:
    with served.connect() as client:
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n":
            client.sendall(bytes([byte]))
        assert status(received(client)) == 200


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n", b"x" * MAX_HEAD])
def test_a_client_that_stops_is_closed(sent: bytes, served: Serving) -> None:
    assert served.send(sent) == b""


@pytest.mark.usefixtures("quick")
def test_a_client_that_does_not_read_is_closed(served: Serving) -> None:
    huge = b"x" * 50_000_000
    with served.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        served.get("/livez")
        assert served.listener._site is not None
        path = served.listener._site.paths["/livez"]
        served.listener._site.paths["/livez"] = path._replace(answer=lambda _: Answer(200, huge))
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        until(lambda: clients(served) == 1, "the client")
        until(lambda: not clients(served), "the client's end")


def clients(served: Serving) -> int:
    return sum(len(door.clients) for door in served.listener._doors)


@pytest.mark.usefixtures("quick")
def test_a_client_that_goes_on_sending_is_closed(served: Serving) -> None:
    with served.connect() as client:
        client.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            client.sendall(bytes(1 << 30))


def test_more_clients_than_it_serves_are_sent_away(served: Serving) -> None:
    with ExitStack() as held:
        for _ in range(MAX_CLIENTS):
            held.enter_context(served.connect())
        until(lambda: clients(served) == MAX_CLIENTS, "all clients")
        assert status(served.send(b"GET /livez HTTP/1.0\r\n\r\n")) in (503, 0)
        # The commands have a door of their own.
        assert ask(served.listener.name, "/livez").status == 200
        assert served.board.refused == 1
    until(lambda: not clients(served), "the end of all clients")
    assert served.get("/livez")[0] == 200


@pytest.mark.usefixtures("quick")
def test_no_client_leaves_a_descriptor_open(served: Serving) -> None:
    """Some are slow, some reset, some are cut off, and some go before they are let in."""
    served.get("/api/state")
    until(lambda: not clients(served), "the first client's end")
    before = descriptors()
    abrupt = (b"\1\0\0\0" + b"\0\0\0\0").ljust(8, b"\0")
    with ExitStack() as held:
        for number in range(40):
            client = held.enter_context(served.connect())
            client.sendall(b"GET /api/state HTTP/1.0\r\n"[: number % 26])
            if number % 3 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abrupt)
                client.close()
    until(lambda: not clients(served), "the end of all clients")
    until(lambda: descriptors() <= before, lambda: f"{descriptors()} descriptors, not {before}")
    assert served.get("/livez")[0] == 200


def test_a_process_of_another_user_is_sent_away(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "is_allowed", lambda _: False)
    with pytest.raises(OSError, match=r"reset|closed|[Bb]roken"):
        ask(served.listener.name, "/livez")
    assert served.board.refused == 1
    assert served.get("/livez")[0] == 200


def test_without_a_descriptor_for_a_client_it_does_not_spin(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    waited: list[float] = []
    monkeypatch.setattr("registrator.listener.listener.time.sleep", waited.append)
    door = listener.Door(cast("socket.socket", Full()), private=False)
    served.listener._accept(door)
    assert listener.NO_DESCRIPTOR in waited
    assert not door.clients


def test_an_address_in_use_is_one_line_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(listener, "RETRY", 0.05)
    host = loopback_ip()
    (port,) = free_ports(host, 1)
    stop, health = threading.Event(), Health()
    with socket.create_server((host, port)):
        made = Listener(ListenAddress(host, port), Board(), health)
        thread = threading.Thread(target=made.run, args=(stop,), daemon=True)
        thread.start()
        until(lambda: "in use" in caplog.text, "the error")
        assert ask(made.name, "/livez").status == 200
        opened = made._open_at
        until(lambda: made._open_at > opened, "another attempt")
    until(lambda: "answering at" in caplog.text, "the address")
    assert caplog.text.count("in use") == 1
    stop.set()
    made.wake()
    thread.join(60)
    health.close()
    assert not thread.is_alive()


def test_without_the_private_socket_the_other_door_is_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sandbox may forbid it."""

    def forbidden(name: str) -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(listener, "open_private", forbidden)
    served = Serving()
    served.health.socket = served.listener.name
    served.thread.start()
    until(lambda: served.get("/livez")[0] == 200, "an answer", ignore=(OSError,))
    assert "no command can ask this agent for its state: Operation not permitted" in caplog.text
    assert served.health.socket == ""
    served.stop.set()
    served.listener.wake()
    served.thread.join(60)
    assert not served.thread.is_alive()
    served.health.close()


def test_at_the_end_the_path_is_gone_and_all_clients_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    stop, health = threading.Event(), Health()
    made = Listener(ListenAddress(path=str(path)), Board(), health)
    thread = threading.Thread(target=made.run, args=(stop,), daemon=True)
    thread.start()
    until(path.exists, "the socket")
    with socket.socket(socket.AF_UNIX) as client:
        until(lambda: client.connect_ex(os.fspath(path)) == 0, "the listener")
        stop.set()
        made.wake()
        thread.join(60)
        assert received(client) == b""
    assert not thread.is_alive()
    assert not path.exists()
    health.close()


def test_the_metrics_are_made_once_for_all_who_ask_at_the_same_time(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registrator.listener.rendered.SHARE", 1e9)
    monkeypatch.setattr("registrator.listener.rendered.MAX_AGE", 1e9)
    code, head, body = served.get("/metrics")
    assert code == 200
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert b"\nregistrator_http_refused_total 0.0\n" in body
    assert b"\nprocess_open_fds " in body
    served.board.refused += 1
    assert served.get("/metrics") == (code, head, body)
