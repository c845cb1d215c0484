"""One seed after the other: faults and containers at random, and in the end everything agrees."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from support.agent import Agent
from support.docker_api import APIError
from support.engine import Dockerd
from support.hanging import Hanging
from support.namespace import Namespace
from support.process import Process
from support.stderr import Valve
from support.wait import DEADLINE, until

from faults.schedule import SECONDS, Fault, schedule
from faults.stranger import Stranger
from faults.usage import Usage, usage_of
from faults.worlds import READ_ERRORS, WORLDS, Record, World

# Two hosts with one engine id: the second is a clone of the first.
HOSTS = {"h": "127.10.0.1", "clone": "127.10.0.2"}
NAMES = [f"c{n}" for n in range(6)]
STABLE = 1.0
# Why an agent ends that starts between the replacements of its certificate and of the key.
HALF_RENEWED = "no certificate with its key"


class Divergence(AssertionError):
    """Registry and engine never agreed, or an agent logged a traceback."""


class Late(Exception):
    """They agreed, but only after so many `seconds`. The text is how things stood at the limit."""

    def __init__(self, seconds: float, story: str) -> None:
        super().__init__(story)
        self.seconds = seconds


class Campaign:
    """An engine, a cluster and an agent, for any number of seeds.

    With `keep_agent` the agent is frozen but never killed, so that its memory can be watched.
    """

    def __init__(self, registry: str, folder: Path, keep_agent: bool = False) -> None:
        self._keep_agent = keep_agent
        self._hanging = Hanging(folder / "hanging")
        self._three: list[str] = []
        self._hangs = 0
        flags = [self._hanging.flag]
        self.engine = Dockerd(folder / "engine", live_restore=True, flags=flags)
        self.host = Namespace()
        self.world: World = WORLDS[registry](folder / registry, self.host.address)
        self.agent, self.clone = (
            Agent(
                folder,
                ["-ip", ip, "-hostname", name, *self._options(name), self.world.uri(name == "h")],
                self.engine.host,
                self.world.environ(),
                name=f"agent-{name}",
                prefix=self.host.command,
            )
            for name, ip in HOSTS.items()
        )
        self._log = Valve(self.agent)
        self._stranger = Stranger(self.world)

    def _options(self, name: str) -> list[str]:
        """The options of an agent by its hostname."""
        own = ("-deregister-on-stop",) if name == "h" else self.world.clones_options
        return [*self.world.options, *own]

    @classmethod
    @contextlib.contextmanager
    def of(cls, registry: str, folder: Path, keep_agent: bool = False) -> Iterator[Campaign]:
        """A campaign that leaves nothing running."""
        made = cls(registry, folder, keep_agent)
        try:
            made.engine.start()
            made.engine.api.import_image("web", expose=[80])
            made._run_three()
            made._stranger.settle(lost=True)
            made.world.guard()
            made.agent.start()
            made.clone.start()
            yield made
        finally:
            made.agent.kill()
            made.clone.kill()
            made._log.close()
            made._hanging.join()
            made.world.remove()
            made.host.remove()
            made.engine.remove()

    def run(self, seed: int) -> float:
        """Run a seed. Returns the seconds until all agreed after the last fault's end.

        Raises `Divergence` or `Late`.
        """
        faults = schedule(seed, self.targets())
        stop = threading.Event()
        churn = threading.Thread(target=self._churn, args=(random.Random(f"churn {seed}"), stop))
        churn.start()
        try:
            self._play(faults)
        finally:
            stop.set()
            self._heal()
            churn.join(60)
        return self._agree(seed, faults)

    def targets(self) -> dict[str, tuple[str, ...]]:
        """The faults of the cluster, the engine, the agent itself, and its network."""
        agent = ("freeze",) if self._keep_agent else ("kill", "freeze")
        own = {"engine": ("kill", "freeze"), "agent": agent, "clone": ("kill", "freeze")}
        own |= {"cable": ("unplug",), "log": ("stop",), "three containers": ("hang",)}
        own |= {"stranger": Stranger.kinds}
        return {**self.world.targets(), **own}

    def usage(self) -> Usage:
        """The resources of the agent's process now. All are 0 if it has ended."""
        return usage_of(self.agent)

    def _play(self, faults: list[Fault]) -> None:
        moments: list[tuple[float, Callable[[], None]]] = []
        for fault in faults:
            begin, end = self._acts(fault)
            moments += [(fault.start, begin), (fault.start + fault.seconds, end)]
        started = time.monotonic()
        for moment, act in sorted(moments, key=lambda pair: pair[0]):
            time.sleep(max(0.0, started + moment - time.monotonic()))
            act()
        time.sleep(max(0.0, started + SECONDS / 2 - time.monotonic()))

    def _acts(self, fault: Fault) -> tuple[Callable[[], None], Callable[[], None]]:
        """How a fault begins, and how it ends."""
        target, kind = fault.target, fault.kind
        own: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "cable": (self.host.unplug, self.host.plug),
            "log": (self._log.shut, self._log.open),
            "three containers": (self._hang, self._hanging.go_on),
            "stranger": (partial(self._stranger.begin, kind), self._stranger.end),
        }
        for name, process in self._processes.items():
            own[name] = partial(self._break, process, kind), partial(self._mend, process)
        world = partial(self.world.begin, target, kind), partial(self.world.end, target, kind)
        return own.get(target, world)

    @staticmethod
    def _break(process: Process, kind: str) -> None:
        if process.running:
            process.kill() if kind == "kill" else process.freeze()

    @staticmethod
    def _mend(process: Process) -> None:
        if process.running:
            process.thaw()
        else:
            process.launch()

    def _run_three(self) -> None:
        """Run the containers that hang now and then. They have a runtime of their own."""
        for number in range(3):
            made = self.engine.api.run(f"hung{number}", publish_all=True, Runtime="hanging")
            self._three.append(made)

    def _hang(self) -> None:
        self._hangs += 1
        self._hanging.hang(self.engine.api, self._three, rename=f"hung{self._hangs}")

    @property
    def _processes(self) -> dict[str, Process]:
        return {"engine": self.engine, "agent": self.agent, "clone": self.clone}

    def _heal(self) -> None:
        """End what still lasts. Returns once engine and cluster serve."""
        self.host.plug()
        self._log.open()
        self._hanging.go_on()
        for process in self._processes.values():
            self._mend(process)
        self.world.heal()
        self.engine.wait_ready()
        self._hanging.join()

    def _churn(self, draw: random.Random, stop: threading.Event) -> None:
        """Containers come, go, restart and change their names, also while the engine fails."""
        while not stop.wait(draw.uniform(0.05, 0.3)):
            with contextlib.suppress(APIError, *READ_ERRORS):
                self._stir(draw, draw.choice(NAMES))

    def _stir(self, draw: random.Random, name: str) -> None:
        api = self.engine.api
        act = draw.choice(["run", "run", "run", "start", "stop", "hup", "kill", "remove", "rename"])
        if act == "run":
            api.run(name, publish_all=True, env={"SERVICE_NAME": f"web-{name}"})
        elif act == "rename":
            api.rename(name, draw.choice(NAMES))
        elif act == "hup":
            api.kill(name, "HUP")
        else:
            getattr(api, act)(name)

    def running(self) -> list[Record]:
        """The entries that should stand in the registry, by the engine's word."""
        wanted = []
        for row in self.engine.api.containers():
            for port in row["Ports"] if row["State"] == "running" else ():
                if port.get("IP") == "0.0.0.0":
                    rest = f"{row['Names'][0][1:]}:{port['PrivatePort']}"
                    wanted += [(f"{h}:{rest}", ip, port["PublicPort"]) for h, ip in HOSTS.items()]
        return sorted(wanted)

    def _agree(self, seed: int, faults: list[Fault]) -> float:
        # Such a fault took the stranger's entry, as it took ours.
        self._stranger.settle(lost=any(fault.kind in self.world.losses for fault in faults))
        wanted = self.running()
        started = time.monotonic()
        since: list[float] = []

        def stable() -> bool:
            self._supervise()
            if self.world.ours() != wanted:
                since.clear()
                return False
            since.append(time.monotonic())
            return since[-1] - since[0] >= STABLE

        late = ""
        try:
            until(stable, "agreement", self.world.settled + STABLE, READ_ERRORS)
        except AssertionError:
            late = self._story(seed, faults, wanted)
            with contextlib.suppress(AssertionError):
                until(stable, "agreement", DEADLINE, READ_ERRORS)
        complaint = "" if since else "they never agreed"
        complaint = complaint or self._stranger.complaint()
        if "Traceback" in self.agent.log + self.clone.log:
            complaint = "a traceback"
        if complaint:
            raise Divergence(f"{complaint}\n{self._story(seed, faults, wanted)}")
        if late:
            raise Late(since[0] - started, late)
        return since[0] - started

    def _supervise(self) -> None:
        """Start the agent again, as a supervisor does, if it read one new file of a pair."""
        if not self.agent.running and HALF_RENEWED in self.agent.tail(3):
            self.agent.launch()

    def _story(self, seed: int, faults: list[Fault], wanted: list[Record]) -> str:
        try:
            got: object = f"{self.world.entries()} {self.world.details()}"
        except READ_ERRORS as error:
            got = error
        lines = [f"seed {seed} of {self.world.name} diverges:", *map(str, faults)]
        lines += [
            f"engine:   {wanted}",
            f"registry: {got}",
            self.agent.tail(40),
            self.clone.tail(40),
        ]
        return "\n  ".join(lines)
