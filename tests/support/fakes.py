"""An engine and a registry in memory, for faults and sequences that the real ones can't show.

`test_contract.py` runs over `FakeBackend` as well, so that it stays like the real ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from registrator.backend import Rejected, SessionLost, Unavailable, require_port
from registrator.model import (
    Actual,
    Container,
    ContainerHealth,
    EngineSlow,
    EngineUnavailable,
    Entry,
    Event,
    Identity,
    Mark,
    Plan,
    Port,
    Service,
    Unreadable,
)


def container(name: str = "web", host_port: int = 32768, **changes: object) -> Container:
    """A running container that publishes port 80, unless `changes` say otherwise."""
    made = Container(
        id=f"{name:0<64}",
        name=name,
        image=f"acme/{name}:1.0",
        hostname=name[:12],
        ports=(Port(80, "tcp", "0.0.0.0", host_port),),
        network_mode="default",
        networks={"bridge": "172.17.0.2"},
        started_at=1,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class FakeEngine:
    """Containers by id. `down` fails every call, `stuck` the inspection of some ids.

    `fails_in` calls from now it goes down. `slow` is called with each inspection. `hangs` are ids
    whose inspection answers within no time limit that is given, `hostile` those whose answer cannot
    be read, and `mute` fails listings alone.
    """

    def __init__(self, *containers: Container) -> None:
        self.containers = {c.id: c for c in containers}
        self.down = False
        self.fails_in: int | None = None
        self.stuck: set[str] = set()
        self.hangs: set[str] = set()
        self.hostile: set[str] = set()
        self.mute = False
        self.inspected: list[str] = []
        self.interrupted = 0
        self.slow: Callable[[], None] = lambda: None
        self._clock = itertools.count(10**9)

    def set_clock(self, now: int) -> None:
        """Have it `now`, in ns of the engine's clock. It may also be a time in the past."""
        self._clock = itertools.count(now)

    def start(self, started: Container) -> Event:
        """Run a container, as of now. Returns the event that tells of it."""
        now = next(self._clock)
        self.containers[started.id] = dataclasses.replace(started, started_at=now, exit_code=None)
        return Event(started.id, "start", now)

    def die(self, container_id: str, exit_code: int = 0) -> Event:
        """End a container, which stays there stopped. Returns the event that tells of it."""
        dead = self.containers[container_id]
        self.containers[container_id] = dataclasses.replace(dead, ports=(), exit_code=exit_code)
        return Event(container_id, "die", next(self._clock), exit_code)

    def kill(self, container_id: str, signal: int | None) -> Event:
        """Send a signal to a container, which lives on. Returns the event that tells of it."""
        return Event(container_id, "kill", next(self._clock), None, signal)

    def pause(self, container_id: str, paused: bool = True) -> Event:
        """Pause a container, or let it go on. Returns the event that tells of it."""
        before = self.containers[container_id]
        self.containers[container_id] = dataclasses.replace(before, paused=paused)
        return Event(container_id, "pause" if paused else "unpause", next(self._clock))

    def probe(self, container_id: str, health: ContainerHealth) -> Event:
        """Give a container another health. Returns the event that tells of it."""
        old = self.containers[container_id]
        self.containers[container_id] = dataclasses.replace(old, health=health)
        return Event(container_id, "health_status", next(self._clock), health=health)

    def remove(self, container_id: str) -> Event:
        """Take a container away. Returns the event that tells of it."""
        self.containers.pop(container_id, None)
        return Event(container_id, "destroy", next(self._clock))

    def ping(self) -> None:
        """Fail if the engine is down."""
        if self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in < 0:
                self.down, self.fails_in = True, None
        if self.down:
            raise EngineUnavailable("connection refused")

    def interrupt(self) -> None:
        """As `DockerEngine.interrupt`. It counts the calls."""
        self.interrupted += 1

    def running(self) -> dict[str, int]:
        """As `DockerEngine.running`."""
        self.ping()
        if self.mute:
            raise EngineUnavailable("status 500")
        return {
            c.id: hash((c.name, c.started_at, c.paused, c.health))
            for c in self.containers.values() if c.exit_code is None
        }  # fmt: skip

    def inspect(self, container_id: str, timeout: float | None = None) -> Container | None:
        """As `DockerEngine.inspect`."""
        self.inspected.append(container_id)
        self.slow()
        self.ping()
        if container_id in self.stuck:
            raise EngineUnavailable("timed out")
        if container_id in self.hangs and timeout is not None:
            raise EngineSlow("timed out")
        if container_id in self.hostile:
            raise Unreadable("its inspection has a form that is not known")
        return self.containers.get(container_id)


class Lanes(Executor):
    """Runs what is submitted at once, or as soon as `free` is called if it is `busy`."""

    def __init__(self, busy: bool = False) -> None:
        self._busy = busy
        self._waiting: list[Callable[[], None]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `Executor.submit`."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._waiting.append(work)
        if not self._busy:
            self.free()
        return future

    def free(self) -> None:
        """Run all that waits."""
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()


@dataclasses.dataclass
class FakeRegistry:
    """The state that several backends share: entries by key, and faults to come.

    `asked` has the keys of each listing that was asked for, also of those that failed.
    `faults` are raised one after the other, one a call. A fault given as (error, done) is raised
    after `done` writes of an `apply` were carried out.
    """

    entries: dict[str, tuple[str, str, Service | None]] = dataclasses.field(default_factory=dict)
    faults: list[Exception | tuple[Exception, int] | None] = dataclasses.field(default_factory=list)
    refuse: set[str] = dataclasses.field(default_factory=set)
    writes: int = 0
    lists: int = 0
    asked: list[Collection[str]] = dataclasses.field(default_factory=list)
    keepalives: int = 0


class FakeBackend:
    """A backend over a `FakeRegistry`: key is the id, content the service, mark the owner."""

    any_thread = True

    def __init__(
        self, registry: FakeRegistry, identity: Identity, interval: float | None = None
    ) -> None:
        self.registry = registry
        self.identity = identity
        self.keepalive_interval = interval
        self.closed = False

    def entry(self, service: Service) -> Entry:
        """As `Backend.entry`."""
        if service.name == "forbidden":
            raise Rejected("its name is forbidden here")
        require_port(service)
        content = dataclasses.asdict(service)
        del content["health"]  # As in the registries that cannot show it.
        return Entry(service.id, json.dumps(content), service)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """As `Backend.list`. It shows nothing of other owners but what stands at `keys`."""
        self.registry.asked.append(keys)
        self._fault()
        self.registry.lists += 1
        found = {}
        for key, (content, owner, service) in self.registry.entries.items():
            if owner not in ("", self.identity.owner) and key not in keys:
                continue
            mark = Mark.OURS if owner == self.identity.owner else Mark.OTHERS
            found[key] = Actual(
                content,
                mark if owner else Mark.NONE,
                id=service.id if service else key,
                address=service.address if service else "",
            )
        return found

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """As `Backend.apply`."""
        error, done = self._next_fault()
        refused = {}
        for step, write in enumerate(self._writes(plan)):
            if error is not None and step >= done:
                raise error
            if isinstance(write, Entry):
                if write.content in self.registry.refuse or write.key in self.registry.refuse:
                    refused[write.key] = "refused"
                    continue
                if self._is_others(write.key):
                    refused[write.key] = "another owner holds it"
                    continue
                value = (write.content, self.identity.owner, write.service)
                self.registry.entries[write.key] = value
            elif not self._is_others(write):
                self.registry.entries.pop(write, None)
            self.registry.writes += 1
        if error is not None:
            raise error
        return refused

    def keepalive(self) -> None:
        """As `Backend.keepalive`."""
        self._fault()
        self.registry.keepalives += 1

    def close(self) -> None:
        """As `Backend.close`."""
        self.closed = True

    def _is_others(self, key: str) -> bool:
        """As a real one, which looks at what stands there before it writes."""
        owner = self.registry.entries.get(key, ("", "", None))[1]
        return owner not in ("", self.identity.owner)

    @staticmethod
    def _writes(plan: Plan) -> Iterable[Entry | str]:
        yield from plan.register
        yield from plan.deregister

    def _next_fault(self) -> tuple[Exception | None, int]:
        fault = self.registry.faults.pop(0) if self.registry.faults else None
        return fault if isinstance(fault, tuple) else (fault, 0)

    def _fault(self) -> None:
        error, _ = self._next_fault()
        if error is not None:
            raise error


def unavailable(done: int = 0) -> tuple[Exception, int]:
    """A fault after so many writes, as a time-out in the middle of a plan is."""
    return Unavailable("no address answers"), done


def lost() -> Exception:
    """A session that ended."""
    return SessionLost("the session expired")
