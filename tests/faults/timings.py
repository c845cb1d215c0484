"""How long after a fault the next write succeeds, and whether anything was missing meanwhile.

Run by ``make faults``, which writes the table into ``docs/failover.md``.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.servers import Server
from support.wait import until

from faults.worlds import READ_ERRORS, WORLDS, World
from registrator.backend import Backend, Context, load
from registrator.model import Identity, Service, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler
from registrator.uri import parse

DOCUMENT = Path(__file__).parents[2] / "docs/failover.md"
BEGIN, END = "<!-- timings -->\n", "<!-- /timings -->"
IP = "127.10.0.1"
STANDING = 20
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """A fault of the member that the agent is connected to, and its target in seconds."""

    registry: str
    role: str
    kind: str
    target: float


ROWS = (
    Row("consul", "agent", "kill", 0.5),
    Row("consul", "agent", "freeze", 3),
    Row("etcd", "follower", "kill", 1),
    Row("etcd", "leader", "kill", 3),
    Row("etcd", "follower", "freeze", 3),
    Row("etcd", "leader", "freeze", 3),
    Row("zookeeper", "follower", "kill", 1),
    Row("zookeeper", "leader", "kill", 3),
    Row("zookeeper", "follower", "freeze", 6.7),
    Row("zookeeper", "leader", "freeze", 6.7),
)


def service(number: int) -> Service:
    """A service that nobody offers."""
    name = f"c{number}"
    return Service(f"h:{name}:80", f"web-{name}", IP, 20000 + number, 80, container_hostname=name)


def snapshot(number: int) -> Snapshot:
    """So many services."""
    made = [service(n) for n in range(number)]
    return Snapshot({each.id: each for each in made}, frozenset({IP}))


@contextlib.contextmanager
def reconciler(uri: str) -> Iterator[Reconciler]:
    """A reconciler as the agent runs it, ended with the block."""
    identity = Identity("owner-of-timings", "h")
    parsed = parse(uri)

    def make(wake: Callable[[], None], wake_soon: Callable[[], None]) -> Backend:
        ttl, refresh = (5, 1) if parsed.scheme == "etcd" else (0, 0)
        context = Context(parsed, identity, ttl, refresh, wake=wake, wake_soon=wake_soon)
        return load(parsed.scheme)(context)

    made, stop = Reconciler(RegistryReport(uri), make, identity), threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        made.wake()
        thread.join(60)


class Gaps:
    """Looks without pause whether the standing services stand. `missing` counts looks that failed.

    A look that the registry did not answer counts for nothing.
    """

    def __init__(self, world: World) -> None:
        self.looks = self.missing = 0
        self._world = world
        self._wanted = {service(n).id for n in range(STANDING)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Gaps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _look(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(*READ_ERRORS):
                found = {record[0] for record in self._world.entries()}
                self.looks += 1
                self.missing += not self._wanted <= found


def choose(world: World, role: str) -> tuple[Server, list[Server]]:
    """The member that is to fail, and the others. The agent is connected to the former."""
    members = world.members[:2] if role == "agent" else world.members
    victim = next(m for m in members if role == "agent" or world.leads(m) == (role == "leader"))
    return victim, [m for m in members if m is not victim]


def measure(world: World, row: Row) -> tuple[float, int, int]:
    """Seconds from the fault to the next write, and how many of how many looks missed something."""
    while True:
        victim, others = choose(world, row.role)
        world.readers = [m for m in world.members if m is not victim]
        addresses = ",".join(m.address for m in (victim, *others))  # type: ignore[attr-defined]
        path = "" if row.registry == "consul" else "/services"
        with reconciler(f"{row.registry}://{addresses}{path}") as running:
            running.publish(snapshot(STANDING))
            until(lambda: running.report.row.in_sync, "a connection")
            if world.serves_agent(victim):
                return _fail(world, running, victim, row.kind)


def _fail(world: World, running: Reconciler, victim: Server, kind: str) -> tuple[float, int, int]:
    until(lambda: len(world.entries()) == STANDING, "all stand", ignore=READ_ERRORS)
    last = service(STANDING).id
    with Gaps(world) as gaps:
        began = time.monotonic()
        world.break_member(victim, kind)
        running.publish(snapshot(STANDING + 1))
        until(
            lambda: any(record[0] == last for record in world.entries()),
            "the next write",
            ignore=READ_ERRORS,
        )
        took = time.monotonic() - began
    world.heal()
    running.publish(snapshot(0))
    until(lambda: world.entries() == [], "an empty registry", ignore=READ_ERRORS)
    return took, gaps.missing, gaps.looks


def table(folder: Path) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield "| registry | fault | to the next write, median (most) | target | missing meanwhile |"
    yield "| --- | --- | --- | --- | --- |"
    for registry in dict.fromkeys(row.registry for row in ROWS):
        world = WORLDS[registry](folder / registry)
        try:
            for row in (each for each in ROWS if each.registry == registry):
                results = [measure(world, row) for _ in range(ROUNDS)]
                took = [result[0] for result in results]
                missing, looks = (sum(result[n] for result in results) for n in (1, 2))
                yield (
                    f"| {registry} | {row.role} {row.kind} | "
                    f"{statistics.median(took):.2f} s ({max(took):.2f} s) | {row.target:g} s | "
                    f"{missing} of {looks} looks |"
                )
        finally:
            world.remove()


def main() -> None:
    """Measure, print, and put the table into the document."""
    print(f"from a fault to the next write, for {DOCUMENT.name}:", flush=True)
    lines = []
    with tempfile.TemporaryDirectory(prefix="timings-") as folder:
        for line in table(Path(folder)):
            print(line, flush=True)
            lines.append(line)
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
