"""Takes inventory, reconciler and a fake registry through random events, faults and clock steps.

However they come: once the faults have ended and all was listed again, desired and actual agree,
and another owner's entry is as it was.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.fakes import (
    FakeBackend,
    FakeEngine,
    FakeRegistry,
    Lanes,
    container,
    lost,
    unavailable,
)

from registrator.backend import BackendError
from registrator.desired.inventory import PORTION, Inventory
from registrator.desired.rules import Rules
from registrator.model import ContainerHealth, EngineUnavailable, Event, Identity
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler

HOST = Identity("engine-1", "h")
NAMES = st.sampled_from(["a", "b", "c", "d"])
THEIRS = ("content", "engine-2", None)
NONE, STARTING, HEALTHY, UNHEALTHY = ContainerHealth


class Host(RuleBasedStateMachine):
    """A host's life: containers come and go, and everything fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.port = 0
        self.engine = FakeEngine()
        self.lanes = Lanes(busy=True)
        self.registry = FakeRegistry({"theirs": THEIRS})
        self.pending: list[Event] = []
        self.start_agent()

    @rule()
    def start_agent(self) -> None:
        """The agent is killed and started anew."""
        self.reconciler = Reconciler(
            RegistryReport("fake://"), self._backend, HOST, clock=lambda: self.now
        )
        self.inventory = Inventory(
            self.engine,
            Rules(hostname="h", forced_ip="127.0.0.7", on_stop=True, on_pause=True, health=True),
            self.reconciler.publish,
            clock=lambda: self.now,
            lanes=self.lanes,
        )

    def _backend(self, *_: Any) -> FakeBackend:
        return FakeBackend(self.registry, HOST)

    @rule(name=NAMES, custom_id=st.booleans(), checked=st.booleans())
    def start(self, name: str, custom_id: bool, checked: bool) -> None:
        self.port += 1
        env = {"SERVICE_ID": "shared"} if custom_id else {}
        health = ContainerHealth.STARTING if checked else ContainerHealth.NONE
        made = container(name, self.port, env=env, health=health)
        self.pending.append(self.engine.start(made))

    @rule(name=NAMES, health=st.sampled_from(ContainerHealth))
    def probe(self, name: str, health: ContainerHealth) -> None:
        """Its health check passes or fails, or starts anew."""
        found = self.engine.containers.get(container(name).id)
        if found and found.exit_code is None and NONE not in (found.health, health):
            self.pending.append(self.engine.probe(found.id, health))

    @rule(name=NAMES)
    def die(self, name: str) -> None:
        if container(name).id in self.engine.containers:
            self.pending.append(self.engine.die(container(name).id))

    @rule(name=NAMES, number=st.sampled_from([1, 9, 15, None]))
    def kill(self, name: str, number: int | None) -> None:
        """A signal is sent. Its receiver may end of it, by another rule, or run on."""
        self.pending.append(self.engine.kill(container(name).id, number))

    @rule(name=NAMES, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        if container(name).id in self.engine.containers:
            self.pending.append(self.engine.pause(container(name).id, paused))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.pending.append(self.engine.remove(container(name).id))

    @rule(order=st.randoms(use_true_random=False), lose=st.booleans(), double=st.booleans())
    def deliver(self, order: Any, lose: bool, double: bool) -> None:
        """Events arrive: shuffled, some twice, some never."""
        order.shuffle(self.pending)
        for event in self.pending[1:] if lose else self.pending:
            self.inventory.mark(event)
            if double:
                self.inventory.mark(event)
        self.pending = []

    @rule(down=st.booleans(), stuck=st.sets(NAMES), soon=st.none() | st.integers(0, 4))
    def engine_fault(self, down: bool, stuck: set[str], soon: int | None) -> None:
        """It fails now, or at one of the next calls, or for some containers only."""
        self.engine.down = down
        self.engine.fails_in = soon
        self.engine.stuck = {container(name).id for name in stuck}

    @rule(hangs=st.sets(NAMES), hostile=st.sets(NAMES), mute=st.booleans())
    def engine_is_strange(self, hangs: set[str], hostile: set[str], mute: bool) -> None:
        """It hangs for some containers, tells nonsense of others, or fails its listings alone."""
        self.engine.hangs = {container(name).id for name in hangs}
        self.engine.hostile = {container(name).id for name in hostile}
        self.engine.mute = mute

    @rule()
    def slow_inspections_end(self) -> None:
        self.lanes.free()

    @rule(seconds=st.sampled_from([0, PORTION / 2, 2 * PORTION]))
    def engine_is_slow(self, seconds: float) -> None:
        """So that a round takes several portions."""
        self.engine.slow = lambda: self.pass_time(seconds)

    @rule(kinds=st.lists(st.sampled_from([None, 0, 1, 2, "lost"]), max_size=3))
    def registry_fault(self, kinds: list[Any]) -> None:
        self.registry.faults = [
            lost() if kind == "lost" else None if kind is None else unavailable(kind)
            for kind in kinds
        ]

    @rule(key=st.sampled_from(["h:a:80", "h:b:80", "shared"]), wipe=st.booleans())
    def meddle(self, key: str, wipe: bool) -> None:
        """Somebody deletes an entry, or the registry comes back empty."""
        if wipe:
            self.registry.entries = {"theirs": THEIRS}
        self.registry.entries.pop(key, None)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(now=st.integers(1, 10**12))
    def set_the_engines_clock(self, now: int) -> None:
        self.engine.set_clock(now)

    @rule()
    def work(self) -> None:
        self._work()

    def _work(self) -> None:
        try:
            self.inventory.step()
            self.reconciler.step()
        except (EngineUnavailable, BackendError):
            return

    @invariant()
    def others_stand(self) -> None:
        assert self.registry.entries["theirs"] == THEIRS

    def teardown(self) -> None:
        """All faults end. After a resync, desired and actual agree."""
        self.engine.down, self.engine.fails_in, self.engine.stuck = False, None, set()
        self.engine.hangs, self.engine.hostile, self.engine.mute = set(), set(), False
        self.engine.slow = lambda: None
        self.registry.faults = []
        # A step tries only one container again that could not be inspected, and there are four.
        for _ in range(6):
            self.lanes.free()
            self.now += 100
            self.inventory.resync()
            self._work()
        running = {
            c.id: c for c in self.engine.containers.values()
            if c.exit_code is None and not c.paused
        }  # fmt: skip
        wanted = {}
        for c in sorted(running.values(), key=lambda c: (c.started_at, c.id)):
            wanted[c.env.get("SERVICE_ID") or f"h:{c.name}:80"] = c
        entries = {key: value[2] for key, value in self.registry.entries.items() if value != THEIRS}
        ports = {key: service.port for key, service in entries.items() if service}
        # A starting one is as it was: there or not.
        assert ports == {
            key: c.ports[0].host_port
            for key, c in wanted.items()
            if c.health in (NONE, HEALTHY) or (c.health is STARTING and key in ports)
        }
        before = self.registry.writes
        self.now += 100
        self.inventory.resync()
        self._work()
        assert self.registry.writes == before, "a resync without a change wrote"
        super().teardown()


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
