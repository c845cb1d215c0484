"""The inventory on an engine that is slow, hangs for some containers, or answers with nonsense."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest
from support.fakes import FakeEngine, Lanes, container
from support.wait import until

from registrator.desired.inspections import MAX_WAIT
from registrator.desired.inventory import Inventory
from registrator.desired.rules import Rules
from registrator.desired.vanished import LOOK_AGAIN, MANY
from registrator.model import Container, EngineSlow, EngineUnavailable, Event, Reason, Snapshot
from registrator.status.board import Board

A, B = container("a"), container("b")
CROWD = [container(f"c{number}", 8000 + number) for number in range(MANY)]
RULES = Rules(hostname="h", forced_ip="127.0.0.7")


class Stock:
    """An inventory over a fake engine, a clock to turn, and what it published."""

    def __init__(self, engine: FakeEngine, keep_failed: bool = False) -> None:
        self.engine = engine
        self.now = 0.0
        self.lanes = Lanes(busy=True)
        self.published: list[Snapshot] = []
        self.board = Board()
        self.inventory = Inventory(
            engine,
            RULES,
            self.published.append,
            keep_failed=keep_failed,
            board=self.board,
            clock=lambda: self.now,
            lanes=self.lanes,
        )

    def step(self, *events: Event) -> set[str]:
        for event in events:
            self.inventory.mark(event)
        self.inventory.step()
        return self.known()

    def failing(self, *events: Event) -> set[str]:
        with pytest.raises(EngineUnavailable):
            self.step(*events)
        return self.known()

    def known(self) -> set[str]:
        """The containers whose services the last snapshot has."""
        return {service.container_name for service in self.published[-1].services.values()}

    def reason(self, container_id: str) -> Reason:
        (left_out,) = self.board.offers[container_id].left_out
        return left_out.reason


def stock(*names: str, keep_failed: bool = False) -> Stock:
    made = Stock(FakeEngine(*map(container, names)), keep_failed)
    made.step()
    return made


def test_a_known_end_does_not_wait_for_a_listing_that_fails() -> None:
    host = stock("a", "b")
    host.engine.mute = True
    host.inventory.resync()
    assert host.failing(host.engine.die(A.id)) == {"b"}
    assert host.published[-1].settled, "registries may remove it"
    host.engine.mute = False
    assert host.step() == {"b"}
    assert len(host.published) == 2


def test_a_listing_that_fails_is_made_up_for() -> None:
    host = stock("a")
    host.engine.start(B)  # Its event is lost.
    host.engine.mute = True
    host.inventory.resync()
    assert host.failing() == {"a"}
    host.engine.mute = False
    assert host.inventory.wait(0), "it is still due"
    assert host.step() == {"a", "b"}


def test_a_known_end_does_not_wait_for_an_engine_that_went_away() -> None:
    host = stock("a")
    host.engine.down = True
    assert host.failing(host.engine.die(A.id), host.engine.start(B)) == set()
    assert host.published[-1].settled


def test_an_engine_that_fails_before_its_first_listing_publishes_nothing() -> None:
    host = Stock(FakeEngine(A))
    host.engine.mute = True
    for event in (host.engine.start(B), host.engine.die(A.id)):
        host.inventory.mark(event)
    with pytest.raises(EngineUnavailable):
        host.inventory.step()
    assert host.published == []


def test_a_listing_that_began_later_wins_over_an_old_end() -> None:
    host = stock("a")
    died = host.engine.die(A.id)
    host.engine.start(A)  # Its event is lost.
    host.inventory.resync()
    assert host.step(died) == {"a"}


def test_an_end_that_is_told_during_a_listing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    host = stock("a")
    running = host.engine.running

    def listing() -> dict[str, int]:
        answer = running()
        host.inventory.mark(host.engine.die(A.id))
        return answer

    monkeypatch.setattr(host.engine, "running", listing)
    host.inventory.resync()
    assert host.step() == set()


def test_an_old_end_that_is_told_during_a_listing_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = stock("a")
    died = host.engine.die(A.id)
    host.engine.start(A)  # Its event is lost.
    running = host.engine.running

    def listing() -> dict[str, int]:
        host.inventory.mark(died)
        return running()

    monkeypatch.setattr(host.engine, "running", listing)
    host.inventory.resync()
    assert host.step() == {"a"}


def test_an_engine_that_is_slow_for_all_is_at_fault_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = stock("a")

    def ping() -> None:
        raise EngineUnavailable("timed out")

    started = host.engine.start(B)

    def slow(container_id: str, timeout: float | None = None) -> None:
        raise EngineSlow("timed out")

    monkeypatch.setattr(host.engine, "inspect", slow)
    monkeypatch.setattr(host.engine, "ping", ping)
    host.failing(started)
    monkeypatch.undo()
    assert host.step() == {"a", "b"}


def test_a_slow_inspection_delays_its_own_container_only() -> None:
    host = stock("a", "b")
    hung = [container(f"hung{number}") for number in range(10)]
    host.engine.hangs = {each.id for each in hung}
    assert host.step(*map(host.engine.start, hung), host.engine.die(A.id)) == {"b"}
    last = host.published[-1]
    assert (last.settled, last.complete) == (True, False)
    assert host.reason(hung[0].id) is Reason.NOT_INSPECTED
    assert host.step(host.engine.start(A)) == {"a", "b"}
    assert not host.inventory.wait(0), "there is nothing to do until an answer comes"
    host.lanes.free()
    assert host.inventory.wait(0)
    assert host.step() == {"a", "b", *(each.name for each in hung)}
    assert host.published[-1].complete


def test_what_hung_once_is_inspected_beside_the_others_from_then_on() -> None:
    host = stock("b")
    host.engine.hangs = {A.id}
    host.step(host.engine.start(A))
    host.engine.inspected.clear()
    host.engine.stuck = {A.id}
    host.lanes.free()
    host.step()
    host.now += MAX_WAIT
    assert not host.inventory.wait(0), "it is due by itself"
    host.step()
    assert host.engine.inspected == [A.id], "the next attempt has not begun"
    host.engine.stuck = set()
    host.lanes.free()
    assert host.step() == {"a", "b"}


def test_what_happens_during_a_slow_inspection_is_looked_at_afterwards() -> None:
    host = stock("b")
    host.engine.hangs = {A.id}
    host.step(host.engine.start(A))
    renamed = dataclasses.replace(host.engine.containers[A.id], name="z")
    host.step(Event(A.id, "rename", 10**10))
    assert not host.inventory.wait(0)
    host.lanes.free()
    host.engine.containers[A.id] = renamed
    host.engine.hangs = set()
    assert host.step() == {"b", "z"}


def test_what_waits_for_a_slow_inspection_holds_up_no_other_attempt() -> None:
    host = stock()
    host.engine.hangs, host.engine.stuck = {A.id}, {B.id}
    host.step(host.engine.start(A), host.engine.start(B))
    host.inventory.mark(Event(A.id, "rename", 10**10))
    host.engine.stuck = set()
    host.now += 0.5
    assert host.step() == {"b"}


def test_an_end_during_a_slow_inspection_counts_at_once_and_for_good() -> None:
    host = stock("a")
    host.engine.hangs = {A.id}
    host.step(Event(A.id, "rename", 10**10))
    running = host.engine.containers[A.id]
    host.engine.set_clock(10**11)
    host.inventory.mark(host.engine.die(A.id))
    assert host.inventory.wait(0)
    assert host.step() == set()
    host.engine.containers[A.id] = running
    host.lanes.free()  # The engine answers as it was before.
    assert host.step() == set()


def test_an_older_end_during_a_slow_inspection_waits_for_it() -> None:
    host = stock()
    host.step(host.engine.start(A))
    host.engine.hangs = {A.id}
    host.step(Event(A.id, "rename", 10**10))
    assert host.step(Event(A.id, "die", 5)) == {"a"}
    assert not host.inventory.wait(0)


def test_a_slow_inspection_that_an_engine_fails_is_taken_up_again() -> None:
    host = stock("b")
    host.engine.hangs = {A.id}
    host.step(host.engine.start(A))
    host.engine.down = True
    host.lanes.free()
    host.failing()
    host.failing()
    host.engine.down = False
    host.step()
    host.now += MAX_WAIT
    host.step()
    host.lanes.free()
    assert host.step() == {"a", "b"}


def test_a_lone_inspection_runs_on_the_inventorys_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = stock("b")
    used: list[threading.Thread] = []
    host.engine.slow = lambda: used.append(threading.current_thread())
    host.step(host.engine.start(A))
    assert used == [threading.current_thread()]


class Hung:
    """An inventory with threads of its own, and containers whose inspections hang until freed."""

    def __init__(self, *hung: Container) -> None:
        self.engine = FakeEngine(*hung, B)
        self.engine.hangs = {each.id for each in hung}
        self.engine.slow = self._hang
        self.free = threading.Semaphore(0)
        self.begun: list[int] = []
        self.timed = threading.Event()
        self.published: list[Snapshot] = []
        self.inventory = Inventory(self.engine, RULES, self.published.append, clock=self._clock)
        self._own = threading.current_thread()

    def _clock(self) -> float:
        self.timed.set()
        return 0.0

    def _hang(self) -> None:
        if threading.current_thread() is not self._own:
            self.begun.append(1)
            assert self.free.acquire(timeout=60)


def wakes(host: Hung, cause: Callable[[], None]) -> None:
    """Assert that an inventory which waits for an hour goes on because of this."""
    host.inventory.step()
    host.timed.clear()
    waiting = threading.Thread(target=host.inventory.wait, args=(3600,), daemon=True)
    waiting.start()
    assert host.timed.wait(60), "it begins to wait"
    cause()
    until(lambda: not waiting.is_alive(), "the end of its wait")


def test_the_answer_to_a_slow_inspection_wakes_the_inventory() -> None:
    host = Hung(A)
    wakes(host, host.free.release)
    host.inventory.step()
    assert host.published[-1].services.keys() == {"h:a:80", "h:b:80"}


def test_an_event_that_no_other_thread_acts_on_wakes_the_inventory() -> None:
    host = Hung()

    def cause() -> None:
        host.inventory.mark(Event("", "start", 10**10))
        host.inventory.step_here(host.published.append)

    wakes(host, cause)
    assert len(host.published) == 1, "a listing is due, which is the inventory's own"


def test_a_resync_wakes_the_inventory() -> None:
    host = Hung()
    wakes(host, host.inventory.resync)


def test_sixteen_slow_inspections_go_on_at_the_same_time() -> None:
    """An engine is not to be flooded with requests that hang."""
    host = Hung(*(container(f"{number}hung", number + 1) for number in range(18)))
    before = set(threading.enumerate())
    host.inventory.step()
    assert len(set(threading.enumerate()) - before) == 16, "each has a thread until it answers"
    host.free.release(18)
    until(lambda: len(host.begun) == 18, "the two that waited")


def test_a_hung_container_costs_the_others_a_fifth_of_a_second_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = stock("b")
    inspect = host.engine.inspect

    def hanging(container_id: str, timeout: float | None = None) -> Container | None:
        host.now += timeout or 0
        return inspect(container_id, timeout)

    monkeypatch.setattr(host.engine, "inspect", hanging)
    host.engine.hangs = {A.id}
    host.step(host.engine.start(A))
    assert host.now == 0.2
    host.lanes.free()
    host.step(host.engine.die(A.id))
    assert host.now == 0.2


def test_a_container_that_cannot_be_inspected_is_tried_again_at_growing_intervals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock("b")

    def told(event: Event | None = None) -> list[str]:
        """The times that the log promises, over ten attempts that each come in time."""
        caplog.clear()
        host.step(*([event] if event else []))
        for _ in range(9):
            host.now = host.now + float(caplog.messages[-1].split()[-2])
            assert not host.inventory.wait(0), "it is due by itself"
            host.step()
        return [line.rsplit(" in ", 1)[1] for line in caplog.messages]

    waits = ["0.5 s", "1.0 s", "2.0 s", "4.0 s", "8.0 s", "16.0 s", *["30.0 s"] * 4]
    host.engine.stuck = {A.id}
    assert told(host.engine.start(A)) == waits
    assert caplog.messages[0].startswith("container a00000000000 cannot be inspected (timed out):")
    host.engine.stuck = set()
    host.now += 30
    assert host.step() == {"a", "b"}
    host.engine.stuck = {A.id}
    assert told(Event(A.id, "rename", 10**10)) == waits, "its success ended the growth"


def test_a_success_ends_the_growth_of_the_intervals_also_soon_after_a_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock()
    host.engine.stuck = {A.id}
    host.step(host.engine.start(A))
    host.engine.stuck = set()
    host.now += 0.5
    assert host.step() == {"a"}
    host.engine.stuck = {A.id}
    host.step(Event(A.id, "rename", 10**10))
    assert [line.rsplit(" in ", 1)[1] for line in caplog.messages] == ["0.5 s"] * 2


def test_an_answer_that_cannot_be_read_is_its_containers_problem(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock("a", "b")
    evil = container("evil")
    host.engine.hostile = {evil.id, A.id}
    changed = Event(A.id, "rename", 10**10)
    assert host.step(host.engine.start(evil), changed) == {"a", "b"}, "what was known stays"
    assert host.reason(evil.id) is Reason.UNREADABLE
    assert not host.published[-1].complete
    assert host.step(host.engine.die(B.id)) == {"a"}
    for _ in range(4):
        host.now += MAX_WAIT
        host.step()
        host.step()
    assert [line for line in caplog.messages if "evil" in line] == [
        "container evil00000000: its inspection has a form that is not known: its services stay"
    ]
    host.engine.hostile = set()
    for _ in range(2):
        host.now += MAX_WAIT
        host.step()
    assert host.known() == {"a", "evil"}


def test_an_event_without_a_container_tells_to_list() -> None:
    host = stock("a")
    host.engine.start(B)
    assert host.step(Event("", "", 0)) == {"a", "b"}


def test_a_listing_without_all_known_containers_is_not_believed_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock(*(each.name for each in CROWD))
    names = {each.name for each in CROWD}
    before, host.engine.containers = host.engine.containers, {}
    for _ in range(3):
        host.inventory.resync()
        assert host.step() == names
    assert caplog.messages == [
        f"Docker engine: none of the {MANY} known containers is in its listing, and no event told "
        "of their end: listing again in 5 s before their services are removed"
    ]
    host.now += LOOK_AGAIN / 2
    host.engine.containers = before
    host.inventory.resync()
    assert host.step() == names, "they are there again"
    host.engine.containers = {}
    host.now += LOOK_AGAIN
    host.inventory.resync()
    assert host.step() == names, "this is a new doubt"
    host.now += LOOK_AGAIN
    assert not host.inventory.wait(0), "it is due by itself"
    assert host.step() == set()


@pytest.mark.parametrize(("known", "stay"), [(2, False), (3, True)])
def test_two_containers_may_vanish_unheard_but_three_are_a_reason_to_doubt(
    known: int, stay: bool
) -> None:
    host = stock(*(f"c{number}" for number in range(known)))
    host.engine.containers = {}
    host.inventory.resync()
    assert len(host.step()) == (known if stay else 0)


def test_failed_containers_that_run_again_count_when_a_listing_is_doubted() -> None:
    host = stock(*(each.name for each in CROWD), keep_failed=True)
    names = {each.name for each in CROWD}
    host.step(*(host.engine.die(each.id, 1) for each in CROWD))
    host.step(*(host.engine.start(each) for each in CROWD))
    host.engine.containers = {}
    host.inventory.resync()
    assert host.step() == names


def test_a_listing_without_all_known_containers_is_believed_if_others_run() -> None:
    host = stock(*(each.name for each in CROWD))
    host.engine.containers = {B.id: B}
    host.inventory.resync()
    assert host.step() == {"b", *(each.name for each in CROWD)}, "an engine with other data"
    host.now += LOOK_AGAIN
    assert host.step() == {"b"}


def test_containers_whose_ends_are_told_are_no_reason_to_doubt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock(*(each.name for each in CROWD))
    host.inventory.resync()
    assert host.step(*(host.engine.die(each.id) for each in CROWD)) == set()
    assert caplog.messages == []


def test_failed_containers_that_stay_are_no_reason_to_doubt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = stock(*(each.name for each in CROWD), keep_failed=True)
    names = {each.name for each in CROWD}
    assert host.step(*(host.engine.die(each.id, 1) for each in CROWD)) == names
    host.inventory.resync()
    assert host.step() == names
    assert caplog.messages == []
    for each in CROWD:
        host.engine.remove(each.id)
    host.inventory.resync()
    assert host.step() == set()
