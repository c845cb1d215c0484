"""The agent's image: small, hardened, healthy, quick, and the same agent inside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from parity import test_parity as parity
from support.agent import Agent
from support.engine import Dockerd
from support.host import Host
from support.images import AGENT, ROOT
from support.namespace import Namespace
from support.proxy import TCPProxy
from support.servers import Consul, Etcd, ZooKeeper, program
from support.wait import until

from registrator import __version__
from registrator.commands.table import COMMANDS

MEBI = 1 << 20
HARDENED = ("--net=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
URI = "consul://127.0.0.1:8500"


@pytest.fixture
def consul_host(host: Host) -> Iterator[Host]:
    """The host, with a Consul on its network. Afterwards nothing runs there."""
    host.run("docker", "run", "-d", "--net=host", "--name=consul", "-e", "SERVICE_IGNORE=1",
             "consul:1.8", "agent", "-dev")  # fmt: skip
    until(lambda: ask(host, "catalog/nodes"), "Consul")
    yield host
    host.api.clear()


def ask(host: Host, path: str) -> Any:
    text = host.run("curl", "-s", f"http://127.0.0.1:8500/v1/{path}", check=False)
    return json.loads(text) if text.startswith(("[", "{")) else None


def run(host: Host, *words: str, socket: str = "/var/run/docker.sock") -> None:
    mount = f"--volume={host.socket}:{socket}"
    host.run("docker", "run", "-d", "--name=agent", *HARDENED, mount, *words)


def web(host: Host, name: str = "web") -> None:
    command = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
    host.api.run(name, "busybox:1.35", ports={"80/tcp": 0}, command=command)


def size(host: Host, image: str) -> int:
    """The bytes of an image's files. The containerd image store would add the packed layers."""
    return sum(layer["Size"] for layer in host.api.request("GET", f"/images/{image}/history"))


def test_what_the_image_says_of_itself(host: Host) -> None:
    said = host.api.request("GET", f"/images/{AGENT}/json")["Config"]
    assert said["Entrypoint"] == ["registrator"]
    assert said["StopSignal"] == "SIGTERM"
    assert said["Healthcheck"]["Test"] == ["CMD", "python", "-m", "registrator.health"]
    labels = {name.rpartition(".")[2]: text for name, text in said["Labels"].items()}
    assert (labels["title"], labels["version"]) == ("registrator", __version__)
    assert labels["revision"] == host.run("git", "rev-parse", "HEAD", check=False).strip()


def test_the_image_is_small_and_has_no_tools(host: Host) -> None:
    assert size(host, AGENT) - size(host, "python:3.14-slim") < 40 * MEBI
    listing = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    found = host.run("docker", "run", "--rm", "--entrypoint=python", AGENT, "-Ic", listing)
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()
              if "==" in line}  # fmt: skip
    names = {name.lower().replace("_", "-") for name in found.split()}
    assert names == {*locked, "registrator"}


def test_the_same_sources_make_the_same_layer(host: Host, tmp_path: Path) -> None:
    """Names, contents, modes and times. Not the image's own date, and so not its id."""
    (tmp_path / "scripts").mkdir()
    for part in ("registrator", "backends", ".cache/wheels"):
        shutil.copytree(ROOT / part, tmp_path / part, copy_function=shutil.copyfile)
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE",
                 "requirements.lock", "requirements-build.lock",
                 "scripts/compile_base.py"):  # fmt: skip
        shutil.copyfile(ROOT / name, tmp_path / name)
    for path in tmp_path.rglob("*"):
        path.chmod(0o775 if path.is_dir() else 0o664)
    host.run("docker", "build", "-q", "--no-cache", "-t", "again", ".", folder=tmp_path)
    first, again = (
        host.api.request("GET", f"/images/{name}/json")["RootFS"]["Layers"]
        for name in (AGENT, "again")
    )
    host.run("docker", "image", "rm", "again")
    assert first == again


def test_both_lock_files_pin_by_hash_and_name_no_place() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        pins = [line for line in text.splitlines() if line[:1].isalpha()]
        assert pins
        assert all(line.endswith(" \\") and "==" in line for line in pins)
        assert "://" not in text


@pytest.mark.parametrize(
    ("socket", "user"),
    [("/var/run/docker.sock", ""), ("/tmp/docker.sock", ""), ("/var/run/docker.sock", "65534")],
)
def test_a_hardened_container_does_its_job(consul_host: Host, socket: str, user: str) -> None:
    web(consul_host)
    group = consul_host.socket.stat().st_gid
    assert group, "every user may be in root's group, so this would show nothing"
    as_user = (f"--user={user}", f"--group-add={group}") if user else ()
    run(consul_host, "--health-interval=1s", *as_user, AGENT, URI, socket=socket)
    until(lambda: "busybox" in ask(consul_host, "catalog/services"), "the service")
    until(lambda: health(consul_host) == "healthy", lambda: health(consul_host))
    consul_host.api.stop("agent")
    # It would be 137 after the engine's SIGKILL.
    assert consul_host.api.inspect("agent")["State"]["ExitCode"] == 0
    assert "busybox" in ask(consul_host, "catalog/services"), "an upgrade takes services down"


def test_each_command_works_in_a_hardened_container(consul_host: Host) -> None:
    web(consul_host)
    run(consul_host, "--health-interval=1s", AGENT, URI)
    until(lambda: health(consul_host) == "healthy", lambda: health(consul_host))
    until(lambda: "busybox" in ask(consul_host, "catalog/services"), "the service")

    def execute(*words: str) -> str:
        # The shell tells the exit code, and ends the watch after its first answer.
        script = """
            docker exec agent registrator "$@" 2>&1 | head -n "$0"; echo "exit ${PIPESTATUS[0]}"
        """
        lines = "1" if words[0] == "watch" else "100"
        return consul_host.run("bash", "-c", script, lines, *words)

    words = {
        "status": ([], "in sync"),
        "list": ([], "registered"),
        "explain": (["web"], f"{URI}: registered"),
        "watch": (["-json"], '"schema": 1'),
        "check": ([URI], "answers"),
        "diff": ([URI], "no difference"),
        "withdraw": ([URI], "an agent of this host runs"),
    }
    assert words.keys() == COMMANDS.keys()
    for name, (more, told) in words.items():
        shown = execute(name, *more)
        assert told in shown, shown
        if name != "watch":  # It goes on until nobody reads any more.
            assert f"exit {int(name == 'withdraw')}" in shown, shown


def health(host: Host) -> str:
    return str(host.api.inspect("agent")["State"]["Health"]["Status"])


def test_a_user_outside_the_sockets_group_is_told(host: Host) -> None:
    run(host, "--user=65534", AGENT, URI)
    try:
        until(lambda: "Permission denied" in logs(host), lambda: logs(host))
    finally:
        host.api.clear()


def logs(host: Host) -> str:
    return host.run("sh", "-c", "docker logs agent 2>&1")


def test_every_module_is_compiled(consul_host: Host) -> None:
    """Else each start and each health check would compile them anew, as nothing can keep them."""
    web(consul_host)
    registries = ("etcd://127.0.0.1:1", "zookeeper://127.0.0.1:1/base", "file:///run/services")
    run(consul_host, "--env=PYTHONVERBOSE=1", "--tmpfs=/run", AGENT, "-http=127.0.0.1:9111",
        URI, *registries, socket="/tmp/docker.sock")  # fmt: skip
    until(lambda: f"{URI}: registered" in logs(consul_host), lambda: logs(consul_host)[-3000:])
    consul_host.run("curl", "-sf", "http://127.0.0.1:9111/metrics")
    command = ("env", "PYTHONVERBOSE=1", "python", "-m", "registrator.health")
    told = consul_host.run("sh", "-c", 'docker exec agent "$@" 2>&1; :', "sh", *command)
    for text in (logs(consul_host), told):
        # Python puts the names of compiled files into quotes.
        assert "# code object from '/" in text
        assert re.findall(r"# code object from (/.*)", text) == []


def test_health_follows_the_registry(consul_host: Host) -> None:
    run(consul_host, "--health-interval=1s", "--health-start-period=0s", "--health-retries=1",
        AGENT, URI)  # fmt: skip

    def said() -> str:
        return str(consul_host.api.inspect("agent")["State"]["Health"]["Log"])

    until(lambda: health(consul_host) == "healthy", said)
    consul_host.run("docker", "stop", "-t", "0", "consul")
    until(lambda: health(consul_host) == "unhealthy", said)
    assert f"{URI}: not in sync" in said()
    consul_host.run("docker", "start", "consul")
    until(lambda: health(consul_host) == "healthy", said)


def test_first_registration(consul_host: Host) -> None:
    """From ``docker run`` on. How long it takes is told, and is not held to: machines differ."""
    web(consul_host)
    took = []
    for _ in range(3):
        started = time.monotonic()
        run(consul_host, AGENT, URI)
        until(lambda: "busybox" in ask(consul_host, "catalog/services"), "the service")
        took.append(time.monotonic() - started)
        consul_host.api.remove("agent")
        for service_id in ask(consul_host, "agent/services"):
            path = f"agent/service/deregister/{service_id}"
            consul_host.run("curl", "-sX", "PUT", f"http://127.0.0.1:8500/v1/{path}")
    print("docker run to first registration, s:", *(f"{each:.2f}" for each in took))


class ContainedAgent(Agent):
    """The agent as a container on its engine's network, attached to.

    That network is not the machine's, so it reaches the registries over proxies at `gateway`.
    """

    gateway = ""

    def __init__(self, folder: Path, words: Sequence[str], docker_host: str) -> None:
        self._proxies: list[TCPProxy] = []

        def reachable(uri: re.Match[str]) -> str:
            self._proxies.append(TCPProxy(uri[1], self.gateway))
            return f"://{self._proxies[-1].address}"

        words = [re.sub(r"://([\d.]+:\d+)", reachable, word) for word in words]
        super().__init__(folder, words, docker_host)

    def kill(self) -> int:
        for proxy in self._proxies:
            proxy.close()
        self._proxies.clear()
        return super().kill()

    def command(self) -> list[str]:
        words = super().command()[3:]
        host = self.environment()["DOCKER_HOST"]
        mount = f"--volume={host.removeprefix('unix://')}:/var/run/docker.sock"
        docker = program("docker", package="docker.io")
        return [docker, "run", "--rm", "--env=SERVICE_IGNORE=1", *HARDENED, mount, AGENT, *words]


@pytest.fixture
def loaded(host: Host, clean_engine: Dockerd, tmp_path: Path) -> Dockerd:
    """The shared engine, with the agent's image and those of the parity cases."""
    archive = tmp_path / "image.tar"
    host.run("docker", "save", "-o", str(archive), AGENT)
    subprocess.run(
        [program("docker", package="docker.io"), "load", "-q", "-i", str(archive)],
        env={**os.environ, "DOCKER_HOST": clean_engine.host},
        check=True,
        capture_output=True,
        timeout=120,
    )
    archive.unlink()
    parity.import_images(clean_engine)
    return clean_engine


def test_parity_from_inside(
    loaded: Dockerd,
    consul: Consul,
    zookeeper: ZooKeeper,
    etcd: Etcd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(loaded.network, Namespace)
    monkeypatch.setattr(ContainedAgent, "gateway", loaded.network.address)
    monkeypatch.setattr(parity, "Agent", ContainedAgent)
    for options in parity.GROUPS:
        parity.test_the_originals_records(options, loaded, consul, zookeeper, etcd, tmp_path)
