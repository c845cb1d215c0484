"""An event on its way through the stages: who acts on it, and who waits for whom."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from functools import partial

import pytest
from support.fakes import FakeBackend, FakeEngine, FakeRegistry, container
from support.wait import until

from registrator.agent import act_here
from registrator.desired.inventory import Inventory
from registrator.desired.rules import Rules
from registrator.model import Event, Identity, Plan, Snapshot
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler

HOST = Identity("engine-1", "h")


class Writes(FakeBackend):
    """A backend that notes which thread writes, and hangs while it is `held`."""

    def __init__(self, held: threading.Event) -> None:
        super().__init__(FakeRegistry(), HOST)
        self.writers: list[threading.Thread] = []
        self._held = held

    def apply(self, plan: Plan) -> Mapping[str, str]:
        self.writers.append(threading.current_thread())
        assert self._held.wait(60)
        return super().apply(plan)


class Stages:
    """An inventory and two registries, each with a thread of its own."""

    def __init__(self) -> None:
        self.engine, self.stop = FakeEngine(container("a")), threading.Event()
        self.free = [threading.Event(), threading.Event()]
        self.backends = [Writes(free) for free in self.free]
        self.reconcilers = [
            Reconciler(RegistryReport(f"fake{number}://"), partial(self._backend, number), HOST)
            for number in range(2)
        ]
        self.inventory = Inventory(self.engine, Rules("h", "127.0.0.7"), self._publish)
        works = (self.inventory.run, *(each.run for each in self.reconcilers))
        self.own = [threading.Thread(target=work, args=(self.stop,)) for work in works]

    def _backend(self, number: int, *_: object) -> Writes:
        return self.backends[number]

    def _publish(self, snapshot: Snapshot) -> None:
        for each in self.reconcilers:
            each.publish(snapshot)

    def act(self, event: Event) -> threading.Thread:
        """The thread that reads this event, and acts on it."""

        def work() -> None:
            if self.inventory.mark(event):
                act_here(self.inventory, self.reconcilers)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def until(self, number: int, *names: str) -> None:
        """Wait until a registry holds the services of these containers."""
        keys = {f"h:{name}:80" for name in names}
        entries = self.backends[number].registry.entries
        until(lambda: set(entries) == keys, lambda: f"{set(entries)}")


@pytest.fixture
def stages() -> Iterator[Stages]:
    made = Stages()
    for thread in made.own:
        thread.start()
    for number, free in enumerate(made.free):
        free.set()
        made.until(number, "a")
    until(lambda: all(each.report.row.in_sync for each in made.reconcilers), "all in sync")
    yield made
    made.stop.set()
    for free in made.free:
        free.set()
    made.inventory.resync()
    for each in made.reconcilers:
        each.retry_now()
    for thread in made.own:
        thread.join(60)
        assert not thread.is_alive()


def test_the_thread_that_read_an_event_writes_the_first_registry(stages: Stages) -> None:
    reading = stages.act(stages.engine.start(container("b")))
    for number in range(2):
        stages.until(number, "a", "b")
    reading.join(60)
    assert stages.backends[0].writers[-1] is reading
    assert stages.backends[1].writers[-1] is stages.own[2]


def test_a_backend_that_does_not_allow_it_keeps_its_own_thread(
    monkeypatch: pytest.MonkeyPatch, stages: Stages
) -> None:
    """As that of a plug-in, which may use something that belongs to one thread."""
    monkeypatch.setattr(stages.reconcilers[0], "_any_thread", False)
    reading = stages.act(stages.engine.start(container("b")))
    stages.until(0, "a", "b")
    reading.join(60)
    assert stages.backends[0].writers[-1] is stages.own[1]


def test_no_registry_waits_for_another_one_that_hangs(stages: Stages) -> None:
    """One thread that reads events may be held up by the first registry, but never two."""
    stages.free[0].clear()
    held = stages.act(stages.engine.start(container("b")))
    stages.until(1, "a", "b")
    until(lambda: stages.backends[0].writers[-1] is held, "it hangs")
    other = stages.act(stages.engine.start(container("c")))
    other.join(60)
    assert not other.is_alive()
    assert held.is_alive()
    stages.until(1, "a", "b", "c")
    stages.free[0].set()
    stages.until(0, "a", "b", "c")
    held.join(60)
    assert stages.backends[0].writers[-1] is stages.own[1], "what came meanwhile"


def test_garbage_is_looked_for_after_the_write_and_not_before(stages: Stages) -> None:
    seen: list[tuple[str, threading.Thread]] = []

    def collected(phase: str, _: object) -> None:
        if phase == "start":
            seen.append(("collection", threading.current_thread()))

    def wrote() -> bool:
        seen.append(("write", threading.current_thread()))
        return True

    stages.free[0].wait = lambda timeout=None: wrote()  # type: ignore[method-assign]
    gc.callbacks.append(collected)
    try:
        reading = stages.act(stages.engine.start(container("b")))
        reading.join(60)
    finally:
        gc.callbacks.remove(collected)
    assert [what for what, thread in seen if thread is reading][-2:] == ["write", "collection"]
