"""The transport to a Consul server: what goes out in which packets."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from registrator.backend import Context
from registrator.backends.consul.api import Api
from registrator.backends.consul.settings import Endpoint, Settings
from registrator.backends.consul.transport import Client
from registrator.uri import parse

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"


def test_a_request_is_one_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of this kind keeps the limits of what each call sends."""
    path, packets = tmp_path / "consul.sock", list[bytes]()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            while packet := sock.recv(1 << 20):
                packets.append(packet)
                sock.sendall(OK)

    serving = threading.Thread(target=serve)
    serving.start()
    monkeypatch.setattr(socket, "SOCK_STREAM", socket.SOCK_SEQPACKET)
    settings = Settings.read(Context(parse(f"consul-unix://{path}")), str(path))
    api = Api(Client(settings, Endpoint(str(path), "", 0), 60))
    api.register({"ID": "a", "Name": "web"})
    api.deregister("a")
    api.http.close()
    serving.join(60)
    listener.close()
    assert [packet.split(b" HTTP", 1)[0] for packet in packets] == [
        b"PUT /v1/agent/service/register",
        b"PUT /v1/agent/service/deregister/a",
    ]
    assert packets[0].endswith(b'\r\n\r\n{"ID": "a", "Name": "web"}')
