"""The agent without its image's defaults: as a systemd service, and behind a socket proxy."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunAgent
from support.certificates import Authority
from support.engine import Dockerd
from support.servers import Consul, program
from support.wait import until

from registrator.engine.client import DockerEngine
from registrator.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging/systemd/registrator.service"
DEFAULTS = ROOT / "packaging/systemd/registrator.default"

# What the socket proxy set-up lets through: GET on these, with or without an API version.
ALLOWED = re.compile(r"(/v[0-9.]+)?/(containers/.*|events|info|version|_ping)(\?.*)?")


class Gatekeeper(http.server.ThreadingHTTPServer):
    """Passes reading requests on to an engine's socket, and refuses all else with 403."""

    daemon_threads = True

    def __init__(self, upstream: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Gate)
        self.upstream = str(upstream)
        self.refused: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class _Gate(http.server.BaseHTTPRequestHandler):
    server: Gatekeeper

    def decide(self) -> None:
        if self.command != "GET" or not ALLOWED.fullmatch(self.path):
            self.server.refused.append(f"{self.command} {self.path}")
            self.send_error(403)
            return
        # One request a connection, so that the answer's end is the connection's.
        self.close_connection = True
        head = f"GET {self.path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as engine, contextlib.suppress(OSError):
            engine.connect(self.server.upstream)
            engine.sendall(head.encode())
            while data := engine.recv(65536):
                self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = decide  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gatekeeper(clean_engine: Dockerd) -> Iterator[Gatekeeper]:
    made = Gatekeeper(clean_engine.socket)
    yield made
    made.shutdown()
    made.server_close()


def test_works_behind_a_proxy_that_only_reads(
    clean_engine: Dockerd, gatekeeper: Gatekeeper, consul: Consul, agent: RunAgent
) -> None:
    def names() -> set[str]:
        return {each["Service"] for each in consul.api("agent/services").values()}

    clean_engine.api.run("before", ports={"80/tcp": 0}, env={"SERVICE_NAME": "before"})
    words = ("-resync", "2", "-ip", "127.10.20.30", f"consul://{consul.address}")
    running = agent(*words, docker_host=gatekeeper.address)
    until(lambda: names() == {"before"}, lambda: str(names()))
    after = clean_engine.api.run("after", ports={"80/tcp": 0}, env={"SERVICE_NAME": "after"})
    until(lambda: names() == {"before", "after"}, lambda: str(names()))
    clean_engine.api.kill(after)
    until(lambda: names() == {"before"}, lambda: str(names()))
    clean_engine.api.remove("before")
    until(lambda: not names(), lambda: str(names()))
    assert gatekeeper.refused == []
    assert "status 403" not in running.log


def test_the_proxy_refuses_the_rest(gatekeeper: Gatekeeper) -> None:
    for method, path in (("POST", "/containers/create"), ("GET", "/images/json")):
        client = http.client.HTTPConnection("127.0.0.1", gatekeeper.server_port, timeout=60)
        client.request(method, path)
        answer = client.getresponse()
        answer.read()
        client.close()
        assert answer.status == 403
    assert gatekeeper.refused == ["POST /containers/create", "GET /images/json"]


def unit_for_here(folder: Path) -> Path:
    """The unit with a program that exists."""
    path = folder / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/registrator/bin/registrator", "/bin/true"))
    return path


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", package="systemd")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit_for_here(tmp_path))],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_exposes_little(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", package="systemd")
    command = [analyze, "security", "--offline=true", "--threshold=20"]
    done = subprocess.run(
        [*command, str(unit_for_here(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_the_units_defaults_name_options_that_exist() -> None:
    known = {option.variable for option in OPTIONS}
    named = set(re.findall(r"REGISTRATOR_[A-Z_]+", DEFAULTS.read_text()))
    assert named <= known


@pytest.mark.parametrize(
    "file",
    sorted([ROOT / "docker-compose.yml", *ROOT.glob("*/*/docker-compose.yml")]),
    ids=lambda file: file.parent.name,
)
def test_compose_reads_each_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("docker-compose", package="docker-compose")
    monkeypatch.setenv("HOST_IP", "192.0.2.10")
    command = [shutil.which("docker-compose") or "", "-f", str(file), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_tls_to_a_remote_engine(tmp_path: Path, consul: Consul, agent: RunAgent) -> None:
    authority = Authority(tmp_path / "tls")
    engine = Dockerd(tmp_path / "engine")
    cert, key = authority.issue("engine", engine.ip)
    address = f"tcp://{engine.ip}:2376"
    flags = ["--tlsverify", f"--tlscacert={authority.ca}", f"--tlscert={cert}", f"--tlskey={key}"]
    engine.flags += [f"--host={address}", *flags]
    for name, file in zip(("cert", "key"), authority.issue("client"), strict=True):
        shutil.copy(file, tmp_path / "tls" / f"{name}.pem")
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "tls")}
    words = ("-ip", "192.0.2.77", "-hostname", "far-away", f"consul://{consul.address}")
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        engine.api.run("there", ports={"80/tcp": 0})
        agent(*words, environ=environ, docker_host=address)
        until(lambda: "far-away:there:80" in consul.api("agent/services"), "the service")
        engine.api.remove("there")
        until(lambda: "far-away:there:80" not in consul.api("agent/services"), "its end")
        assert by_context(tmp_path, address) == engine.api.request("GET", "/info")["ID"]
    finally:
        engine.remove()


def by_context(folder: Path, address: str) -> str:
    """The engine's id, asked for through a context of the CLI with the certificates in `tls`."""
    files = (f"{name}={folder}/tls/{name}.pem" for name in ("ca", "cert", "key"))
    where = ",".join((f"host={address}", *files))
    environ = {"DOCKER_CONFIG": str(folder / "config"), "DOCKER_CONTEXT": "remote"}
    docker = program("docker", package="docker.io")
    subprocess.run(
        [docker, "context", "create", "remote", "--docker", where],
        env={**os.environ, "DOCKER_CONFIG": environ["DOCKER_CONFIG"]},
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    client = DockerEngine(environ)
    found = client.identify().id
    client.close()
    return found
