"""``make demo``: containers come and go, and a table shows the registry after each step.

The demo uses the Docker engine that answers. If none answers, it starts its own engine on a private
socket, which needs root. It removes everything that it made when it ends, fails or is interrupted.
With ``STAY=1`` it waits for an interrupt at its end, so that you can try things and watch the page.
A signal handler only notes the signal. The demo looks at the note between two steps and in every
wait, so that it never leaves a step or the clean-up half done.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import docker
from docker.errors import APIError, DockerException

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

# The tests' engine and processes end with this process, even if it is killed.
from support.agent import Agent
from support.engine import Dockerd
from support.process import guard
from support.wait import until

# An engine starts within seconds, but a busy machine needs longer.
DEADLINE = 60.0
PORT_TRIES = 50
PAGE_HOST, PAGE_PORT = "127.0.0.1", 9909
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULT_HOST = "unix:///var/run/docker.sock"
NEXT = "Next: docs/quickstart.md."
UNTIL_TERM = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]


class Stopped(Exception):
    """The demo cannot continue. The text says why."""


class Interrupted(Exception):
    """A signal arrived."""


class Engine(NamedTuple):
    """A Docker engine that answers, and the variables that lead to it."""

    client: docker.APIClient
    environ: dict[str, str]


class Row(NamedTuple):
    """A service, as the registry's file shows it."""

    service: str
    address: str
    port: str
    tags: str
    id: str


received: list[int] = []


def wait(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Wait for `condition`. Raises `Stopped` after `DEADLINE`, `Interrupted` after a signal."""

    def check() -> bool:
        go_on()
        return bool(condition())

    try:
        until(check, what, DEADLINE)
    except AssertionError as error:
        raise Stopped(str(error)) from None


def go_on() -> None:
    """Raise `Interrupted` if a signal arrived."""
    if received:
        raise Interrupted


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """The engine that answers, or else an engine of the demo."""
    try:
        client = docker.from_env(timeout=5).api
        client.ping()
    except DockerException:
        pass
    else:
        host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        print(f"Docker engine: {host}")
        variables = {k: v for k, v in os.environ.items() if k.startswith("DOCKER_")}
        yield Engine(client, variables | {"DOCKER_HOST": host})
        return
    lacking = [name for name in ("dockerd", "ip", "busybox") if not shutil.which(name)]
    if lacking or os.geteuid() != 0:
        raise Stopped(
            "no Docker engine answers, and to start one the demo needs root"
            + (f" and these missing programs: {', '.join(lacking)}" if lacking else "")
        )
    own = Dockerd(folder / "engine")
    print(f"Docker engine: none answers; the demo starts its own at {own.host}")
    try:
        own.launch()
        wait(lambda: own.running and _answers(own), own.tail)
        yield Engine(docker.APIClient(own.host, timeout=20), {"DOCKER_HOST": own.host})
    finally:
        own.remove()


def _answers(own: Dockerd) -> bool:
    try:
        return own.ready()
    except OSError:
        return False


class Demo:
    """Containers of one run of the demo, and the registry that follows them."""

    def __init__(self, engine: Engine, registry: Path) -> None:
        self._client = engine.client
        self._host = engine.environ["DOCKER_HOST"]
        self._registry = registry
        self._run = secrets.token_hex(2)
        self._label = f"registrator.demo={self._run}"
        self._image = f"registrator-demo/web:{self._run}"

    def make_image(self) -> None:
        """Import busybox as an image that exposes port 80, so that the engine pulls nothing."""
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Stopped("busybox is missing; install Debian's busybox-static")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.add(os.path.realpath(busybox), "bin/busybox")
            for applet in ("sh", "sleep"):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        repository, _, tag = self._image.partition(":")
        self._client.import_image_from_data(
            out.getvalue(), repository=repository, tag=tag, changes=["EXPOSE 80"]
        )

    def start(self, name: str, environment: dict[str, str] | None = None, port: int = 80) -> None:
        """Run a container with a published port. The engine chooses the host port."""
        key, _, value = self._label.partition("=")
        made = self._client.create_container(
            self._image,
            UNTIL_TERM,
            name=self.name(name),
            ports=[port],
            environment=environment,
            labels={key: value},
            host_config=self._client.create_host_config(port_bindings={port: ("0.0.0.0",)}),
        )
        self._start(made)

    def _start(self, container: dict[str, str]) -> None:
        """Start it. If another program uses the port, the engine chooses the next one."""
        for _ in range(PORT_TRIES):
            go_on()
            try:
                self._client.start(container)
            except APIError as error:
                if "address already in use" not in str(error):
                    raise
            else:
                return
        raise Stopped(f"the engine found no free port in {PORT_TRIES} attempts")

    def stop(self, name: str) -> None:
        """Stop a container without removing it."""
        self._client.stop(self.name(name), timeout=5)

    def show(self, what: str) -> None:
        """Wait until the registry agrees with the engine, and print it."""
        go_on()
        want = self._running()
        wait(
            lambda: self._held() == want,
            lambda: f"the registry to hold {sorted(want)}; it holds {self._rows()}",
        )
        print(f"\n{what}\n")
        _print_table(self._rows())

    def _running(self) -> set[tuple[str, str]]:
        """The running containers with their host ports, as the engine lists them."""
        filters = {"label": self._label, "status": "running"}
        found = self._client.containers(filters=filters)
        return {
            (container["Names"][0].removeprefix("/"), str(port["PublicPort"]))
            for container in found
            for port in container["Ports"]
            if "PublicPort" in port
        }

    def _held(self) -> set[tuple[str, str]]:
        """The same from the registry, without other services of the machine's engine."""
        held = {(row.id.partition(":")[2].partition(":")[0], row.port) for row in self._rows()}
        return {pair for pair in held if pair[0].endswith(f"-{self._run}")}

    def _rows(self) -> list[Row]:
        groups = json.loads(self._registry.read_text()) if self._registry.exists() else []
        rows = []
        for group in groups:
            labels = group["labels"]
            address, _, port = group["targets"][0].rpartition(":")
            tags = labels.get("tags", "").strip(",")
            rows.append(Row(labels["service"], address, port, tags, labels["id"]))
        return sorted(rows)

    def name(self, name: str) -> str:
        """The full name of a container of this run."""
        return f"{name}-{self._run}"

    def command(self, variable: str) -> str:
        """A command by which the user starts a container that goes with the demo."""
        return (
            f"docker -H {self._host} run -d -P --label {self._label} -e {variable} "
            f"{self._image} sleep 1000000"
        )

    def remove(self) -> None:
        """Remove the containers and the image of this run."""
        for container in self._client.containers(all=True, filters={"label": self._label}):
            self._client.remove_container(container, force=True)
        if self._client.images(self._image):
            self._client.remove_image(self._image, force=True)


def _print_table(rows: list[Row]) -> None:
    table = [Row(*(field.upper() for field in Row._fields)), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join(cells).rstrip())


def page_port() -> int:
    """The usual port of the page, or a free one if another program has it."""
    for port in (PAGE_PORT, 0):
        with contextlib.suppress(OSError), socket.create_server((PAGE_HOST, port)) as tried:
            return int(tried.getsockname()[1])
    raise Stopped(f"no port of {PAGE_HOST} is free")


@contextlib.contextmanager
def agent(folder: Path, registry: Path, engine: Engine) -> Iterator[None]:
    """Run the agent on the file registry."""
    uri = f"file://{registry}"
    # A machine without a route has no address that the agent could find.
    page = f"{PAGE_HOST}:{page_port()}"
    words = ["-ip", "127.0.0.1", "-http", page, uri]
    process = Agent(folder, words, engine.environ["DOCKER_HOST"], engine.environ)
    print(f"Agent:         registrator {' '.join(words)}")
    try:
        process.launch()
        process.wait_log(f"answering at {page}")
        print(f"Page:          http://{page}/ shows the same, live, while this runs")
        yield
    except Stopped as error:
        raise Stopped(f"{error}\n{process.tail()}") from None
    finally:
        process.stop()


def tell(demo: Demo) -> None:
    """The steps of the demo: change the containers, and show the registry."""
    demo.make_image()
    demo.start("web-1")
    demo.show("A container publishes a port. The service has the name of the image.")
    demo.start("db", {"SERVICE_NAME": "postgres", "SERVICE_TAGS": "primary,v16"}, 5432)
    demo.show("A second container sets a name and tags in its environment.")
    demo.start("web-2")
    demo.start("web-3")
    demo.show("The first service has 3 containers now.")
    demo.stop("web-2")
    demo.show("One of them has stopped, and its entry is gone.")


def stay(demo: Demo) -> None:
    """Wait for a signal: the end that the user wants."""
    registrator = os.path.relpath(Path(sys.executable).with_name("registrator"))
    print(
        "\nThe demo stays until Ctrl-C. Use another terminal in this folder. Start a container, and"
        "\nsee it on the page. By the label, the demo removes it at its end. Docker may warn that"
        "\nIPv4 forwarding is disabled. The demo does not need it.\n"
    )
    print(f"  {demo.command('SERVICE_NAME=shop')}\n")
    print("Start one that is left out. The page tells why:\n")
    print(f"  {demo.command('SERVICE_IGNORE=true')}\n")
    print("Ask the agent. The second command follows each change:\n")
    print(f"  {registrator} explain {demo.name('web-1')}")
    print(f"  {registrator} watch", flush=True)
    while not received:
        time.sleep(0.2)
    print(f"\nEverything is removed. {NEXT}")


def main() -> int:
    """Run the demo. Returns the exit code."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: received.append(number))
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="registrator-demo-"))
    guard("+command", ["rm", "-rf", str(folder)])
    registry = folder / "services.json"
    try:
        with engine(folder) as found:
            demo = Demo(found, registry)
            with contextlib.ExitStack() as stack:
                stack.callback(demo.remove)
                stack.enter_context(agent(folder, registry, found))
                tell(demo)
                if os.environ.get("STAY"):
                    stay(demo)
                    return 0
    except Interrupted:
        print("\ndemo: interrupted; everything is removed", file=sys.stderr)
        return 128 + received[0]
    except (Stopped, DockerException) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    seconds = time.monotonic() - begin
    print(f"\nDone in {seconds:.1f} s, and everything is removed. {NEXT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
