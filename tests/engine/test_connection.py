"""The connection to the engine: used by several threads, slow, refused, or gone for good."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.agent import Agent
from support.certificates import Authority
from support.require import require
from support.servers import program

from registrator.engine.client import DockerEngine
from registrator.engine.connection import Connection
from registrator.model import EngineSlow, EngineUnavailable

ID = "a" * 64


class Handler(BaseHTTPRequestHandler):
    """Answers with 400 to half of all requests, and takes long to tell what it is."""

    protocol_version = "HTTP/1.1"
    slow = 0.0
    refused = False

    def do_GET(self) -> None:
        kind = type(self)
        if self.path.endswith(("/info", "/json")):
            time.sleep(kind.slow)
        kind.refused = not kind.refused and self.path.endswith("/containers/json")
        body = b"[]" if self.path.endswith("/containers/json") else json.dumps({"ID": "x"}).encode()
        self.send_response(400 if kind.refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A client that does not wait any more has closed the connection.
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Handler]]:
    """A handler of its own, whose server is at `address`."""
    kind = type("Fresh", (Handler,), {})
    made = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    kind.listener = made  # type: ignore[attr-defined]
    kind.address = f"tcp://127.0.0.1:{made.server_port}"  # type: ignore[attr-defined]
    yield kind
    made.shutdown()
    thread.join(60)
    made.server_close()


def client(server: type[Handler], timeout: float = 5.0) -> DockerEngine:
    environ = {"DOCKER_HOST": server.address, "DOCKER_API_VERSION": "1.41"}  # type: ignore[attr-defined]
    return DockerEngine(environ, timeout=timeout)


def test_a_refusal_of_another_threads_request_breaks_none(
    server: type[Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 400 the connection forgets its API version, whatever other threads do meanwhile."""
    engine = client(server)
    connect = Connection._connect

    def connected(connection: Connection) -> object:
        agreed = connect(connection)
        connection._agreed = None
        return agreed

    monkeypatch.setattr(Connection, "_connect", connected)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="status 400"):
            engine.running()
        assert engine.running() == {}
    engine.close()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("verify", ["1", ""])
def test_certificates_without_key_identifiers_are_accepted(
    server: type[Handler],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verify: str,
) -> None:
    """The Docker CLI accepts them. Python refuses them from 3.13 on, and urllib3 with it."""
    as_here = urllib3.util.ssl_.create_urllib3_context

    def as_in_3_13(*args: Any, **options: Any) -> ssl.SSLContext:
        made = as_here(*args, **options)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    for module in (urllib3.util.ssl_, urllib3.connection):
        monkeypatch.setattr(module, "create_urllib3_context", as_in_3_13)
    engine = over_tls(server, Authority(tmp_path, identifiers=False), verify)
    assert engine.identify().id == "x"
    engine.close()


def test_an_engine_whose_authority_is_another_is_refused(
    server: type[Handler], tmp_path: Path
) -> None:
    engine = over_tls(server, Authority(tmp_path), "1")
    Authority(tmp_path, "another")
    with pytest.raises(EngineUnavailable, match="certificate verify failed"):
        engine.identify()
    engine.close()


def over_tls(server: type[Handler], authority: Authority, verify: str) -> DockerEngine:
    """A client with a certificate, for a server that asks for one from now on."""
    cert, key = authority.issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = server.listener  # type: ignore[attr-defined]
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    for name, file in zip(("cert", "key"), authority.issue("client"), strict=True):
        file.rename(authority.ca.with_name(f"{name}.pem"))
    return DockerEngine(
        {
            "DOCKER_HOST": server.address,  # type: ignore[attr-defined]
            "DOCKER_API_VERSION": "1.41",
            "DOCKER_TLS_VERIFY": verify,
            "DOCKER_CERT_PATH": str(authority.ca.parent),
        }
    )


def test_an_engine_that_is_slow_to_tell_of_itself(server: type[Handler]) -> None:
    """The manager of a swarm without a quorum takes 20 s."""
    server.slow = 1.0
    engine = client(server, timeout=0.5)
    assert engine.identify().id == "x"
    engine.close()


def test_what_takes_longer_than_its_time_limit_is_slow(server: type[Handler]) -> None:
    server.slow = 1.0
    engine = client(server)
    with pytest.raises(EngineSlow):
        engine.inspect(ID, 0.1)
    engine.close()


def test_an_agent_whose_mounted_socket_was_made_anew_ends(tmp_path: Path) -> None:
    """Docker's daemon makes its socket at each start. A mount of the file keeps the old one."""
    require("root", os.geteuid() == 0, "a mount needs it")
    unshare = program("unshare", package="util-linux")
    engines, mounted = tmp_path / "docker.sock", tmp_path / "mounted.sock"
    mounted.touch()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(engines))
    script = f'mount --bind {engines} {mounted} && exec "$@"'
    agent = Agent(
        tmp_path / "agent",
        ["-ip", "127.10.0.1", f"file://{tmp_path}/services.json"],
        f"unix://{mounted}",
        prefix=[unshare, "--mount", "sh", "-c", script, "sh"],
    )
    try:
        agent.start()
        agent.wait_log("Docker engine: none answers at .* retrying")
        listener.close()
        engines.unlink()
        agent.wait_log(f"the engine's socket {mounted} is an old one")
        assert agent.exited() == 1
    finally:
        agent.kill()
        listener.close()
