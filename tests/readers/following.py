"""A service is scaled and the agent is killed, while a reader of the registry is watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from support.agent import Agent
from support.engine import Dockerd
from support.process import Process
from support.wait import until
from support.walkthrough import is_well

SERVICE = "web"
# Each instance answers with its own address. It ends at once when it is stopped.
SERVE = "mkdir -p /www && echo $ADDRESS >/www/index.html && trap 'exit 0' TERM && httpd -h /www"
COMMAND = ("sh", "-c", f"{SERVE} && sleep 1000000 & wait")
FIRST_PORT = 20000
# Seconds between two looks at what a reader shows.
PAUSE = 0.05


class Reader:
    """A reader of a registry: its `programs`, and what it shows.

    For `period` seconds it may not ask the registry. For `steady` seconds after the first right
    answer it may still give some of the answers before it, as a program does that replaces itself.
    """

    period = 0.0
    steady = 0.0
    programs: Sequence[Process] = ()

    def start(self) -> None:
        """Run it. It need not be ready yet."""
        for each in self.programs:
            each.launch()

    def addresses(self) -> set[str]:
        """The instances that it shows now, as ``address:port``. Any exception is a wrong answer."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it, without the time that some programs take for their own end."""
        for each in self.programs:
            each.kill()

    def tail(self) -> str:
        """The ends of its logs."""
        return "\n".join(each.tail() for each in self.programs)


class Watch:
    """Looks at a reader all the time, from its first right answer on, and notes the wrong ones.

    While nothing changes, only the right addresses are right. During a change, the reader may lack
    some of those that come, and show some of those that go. The change ends when it is right.
    """

    def __init__(self, reader: Reader, first: set[str]) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self._reader = reader
        self._want = first
        self._least: set[str] | None = None
        self._most: set[str] = set()
        self._right_since: float | None = None
        self._settled = False
        self._last = "nothing"
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    def change(self, want: set[str]) -> None:
        """From now on other addresses are right, and those that were right may still be shown."""
        with self._lock:
            self._least, self._most = self._want & want, self._want | want
            self._want, self._settled, self._right_since = want, False, None

    def wait(self) -> float:
        """Wait until the reader is right. Returns since when, by the monotonic clock."""
        until(lambda: self._settled or self.wrong, self.state)
        self.check()
        assert self._right_since is not None
        return self._right_since

    def stay(self, seconds: float) -> None:
        """Go on for so many seconds, and for some looks at least."""
        end, looks = time.monotonic() + seconds, self.looks + 3
        until(lambda: time.monotonic() > end and self.looks >= looks, self.state)
        self.check()

    def check(self) -> None:
        """Fail if the reader ever gave a wrong answer."""
        wrong = f"{self.state()}, and showed {self.wrong[:3]}\n{self._reader.tail()}"
        assert self.wrong == [], wrong

    def state(self) -> str:
        """Addresses that were right, and those that were shown."""
        return f"{sorted(self._want)} of {type(self._reader).__name__}, which shows {self._last}"

    def _run(self) -> None:
        while not self._end.wait(PAUSE):
            # A change waits until this look is over.
            with self._lock:
                self._look()

    def _look(self) -> None:
        found: set[str] | None = None
        try:
            found = self._reader.addresses()
            self._last = str(sorted(found))
        except Exception as error:
            self._last = f"{type(error).__name__}: {error}"
        self.looks += 1
        now = time.monotonic()
        if found == self._want:
            self._right_since = self._right_since or now
            self._settled = now - self._right_since >= self._reader.steady
            return
        if self._settled or not self._may_show(found):
            self.wrong.append(self._last)
        self._right_since = None

    def _may_show(self, found: set[str] | None) -> bool:
        """Whether this may be seen during the present change."""
        if self._least is None:
            return True  # It starts.
        return found is not None and self._least <= found <= self._most


class Scene:
    """A service on an engine, whose instances an agent registers.

    `variables` are set in the instances' environments.
    """

    def __init__(self, engine: Dockerd, run_agent: Callable[..., Agent]) -> None:
        self.engine = engine
        self.variables: dict[str, str] = {}
        self._run_agent = run_agent
        self._ports: list[int] = []
        self._next = FIRST_PORT

    @property
    def addresses(self) -> set[str]:
        """The instances that run, as ``address:port``."""
        return {f"{self.engine.ip}:{port}" for port in self._ports}

    def follow(self, reader: Reader, *words: str) -> None:
        """Hold that the reader shows what runs, always. `words` are the agent's."""
        agent = self._start(words)
        self._run(self._choose(1))
        with self._watch(reader) as watch:
            watch.wait()
            self._scale(3, watch)
            self._scale(2, watch)
            assert agent.kill() < 0
            watch.stay(0)
            agent.start()
            until(lambda: is_well(agent.pid), agent.tail, ignore=(OSError,))
            watch.stay(1 + 2 * reader.period)
            # It could be right by accident if it had stopped to read.
            for number in (3, 0, 2):
                self._scale(number, watch)
            watch.stay(0.5)

    def run(self, number: int, *words: str) -> set[str]:
        """Start an agent and instances. Returns their addresses."""
        self._start(words)
        self._run(self._choose(number))
        return self.addresses

    def _start(self, words: Sequence[str]) -> Agent:
        return self._run_agent("-ip", self.engine.ip, "-hostname", "h", *words)

    @contextmanager
    def _watch(self, reader: Reader) -> Iterator[Watch]:
        watch = Watch(reader, self.addresses)
        try:
            reader.start()
            watch.start()
            yield watch
            assert all(each.running for each in reader.programs), reader.tail()
        finally:
            watch.stop()
            reader.stop()

    def _scale(self, number: int, watch: Watch) -> None:
        """Start or remove instances, and wait until the reader is right."""
        before = len(self._ports)
        if number > before:
            new = self._choose(number - before)
            watch.change(self.addresses)
            self._run(new)
        else:
            gone, self._ports = self._ports[number:], self._ports[:number]
            watch.change(self.addresses)
            for port in gone:
                self.engine.api.remove(f"{SERVICE}{port}")
        done = time.monotonic()
        seconds = max(0.0, watch.wait() - done)
        # The log of `make compatibility` shows it.
        print(f"{before} to {number}: {seconds:.1f} s")

    def _choose(self, number: int) -> list[int]:
        """Ports for so many new instances, which nobody had before."""
        new = [*range(self._next, self._next + number)]
        self._next += number
        self._ports += new
        return new

    def _run(self, ports: Sequence[int]) -> None:
        for port in ports:
            address = f"{self.engine.ip}:{port}"
            self.engine.api.run(
                f"{SERVICE}{port}",
                ports={"80/tcp": port},
                env={"SERVICE_NAME": SERVICE, "ADDRESS": address, **self.variables},
                command=COMMAND,
            )
