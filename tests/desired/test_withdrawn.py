"""Containers that are being stopped (``-deregister-on-stop``), or paused."""

from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FakeBackend, FakeEngine, FakeRegistry, Lanes, container

from registrator.agent import act_here
from registrator.desired.inventory import Inventory
from registrator.desired.rules import Rules
from registrator.desired.withdrawn import GRACE, LONGEST, RETURN, Kill, Withdrawn
from registrator.model import Container, EngineUnavailable, Event, Identity, Reason, Snapshot
from registrator.status.board import Board
from registrator.status.report import RegistryReport
from registrator.sync.reconciler import Reconciler

TERM, KILL, HUP, QUIT = signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT
A, B = container("a"), container("b")
RULES = Rules("h", forced_ip="127.0.0.7", on_stop=True, on_pause=True)
HOST = Identity("engine-1", "h")


class Stock:
    """An inventory over a fake engine, a clock to turn, and what it published."""

    def __init__(
        self, *containers: Container, rules: Rules = RULES, keep_failed: bool = False
    ) -> None:
        self.engine = FakeEngine(*containers)
        self.now = 0.0
        self.lanes = Lanes(busy=True)
        self.published: list[Snapshot] = []
        self.board = Board()
        self.inventory = Inventory(
            self.engine,
            rules,
            self.published.append,
            keep_failed=keep_failed,
            board=self.board,
            clock=lambda: self.now,
            lanes=self.lanes,
        )

    def step(self, *events: Event) -> set[str]:
        """Take in the events. Returns the containers whose services are then published."""
        for event in events:
            self.inventory.mark(event)
        self.inventory.step()
        return self.known()

    def sleeps(self) -> bool:
        """Whether the inventory's thread would wait, instead of going round and round."""
        return not self.inventory.wait(1e-3) and self.inventory._agenda._until > self.now

    def known(self) -> set[str]:
        return {service.container_name for service in self.published[-1].services.values()}

    def reasons(self, container_id: str) -> list[Reason]:
        return [each.reason for each in self.board.offers[container_id].left_out]


@pytest.mark.parametrize("number", [TERM, KILL, QUIT])
def test_a_container_that_is_told_to_stop_is_withdrawn_without_an_inspection(number: int) -> None:
    stock = Stock(dataclasses.replace(A, stop_signal=QUIT), B)
    assert stock.step() == {"a", "b"}
    stock.engine.inspected.clear()
    assert stock.step(stock.engine.kill(A.id, number)) == {"b"}
    assert stock.engine.inspected == []
    assert stock.reasons(A.id) == [Reason.WITHDRAWN]
    assert stock.step(stock.engine.die(A.id)) == {"b"}
    assert A.id not in stock.board.offers
    assert stock.engine.inspected == []


@pytest.mark.parametrize("number", [HUP, QUIT, signal.SIGUSR1, signal.SIGINT, None])
def test_any_other_signal_does_nothing_and_costs_nothing(number: int | None) -> None:
    stock = Stock(A)
    stock.step()
    stock.engine.inspected.clear()
    assert stock.step(stock.engine.kill(A.id, number)) == {"a"}
    assert stock.engine.inspected == []
    assert len(stock.published) == 1
    assert not stock.inventory.wait(0)


def test_a_signal_that_asks_for_no_stop_undoes_none_that_does() -> None:
    stock = Stock(A)
    stock.step()
    events = [stock.engine.kill(A.id, number) for number in (HUP, TERM, HUP)]
    assert stock.step(*events) == set()
    assert stock.step(stock.engine.kill(A.id, signal.SIGWINCH)) == set()


def test_a_container_whose_label_hides_the_signal_stays() -> None:
    stock = Stock(dataclasses.replace(A, stop_signal=0))
    stock.step()
    assert stock.step(*(stock.engine.kill(A.id, number) for number in (0, TERM, KILL))) == {"a"}
    assert stock.step(stock.engine.die(A.id)) == set()


def test_without_the_option_no_signal_counts() -> None:
    stock = Stock(A, rules=Rules("h", forced_ip="127.0.0.7"))
    stock.step()
    assert stock.step(stock.engine.kill(A.id, TERM)) == {"a"}
    stock.now += LONGEST
    assert stock.step(stock.engine.kill(B.id, TERM)) == {"a"}
    assert stock.engine.inspected == [A.id]


def test_a_resync_does_not_register_what_is_being_stopped() -> None:
    stock = Stock(A, B)
    stock.step()
    stock.step(stock.engine.kill(A.id, TERM))
    for _ in range(3):
        stock.inventory.resync()
        assert stock.step() == {"b"}
    stock.inventory.use_rules(dataclasses.replace(RULES, tags=("new",)), frozenset())
    assert stock.step() == {"b"}
    assert stock.board.offers.keys() == {A.id, B.id}, "it is still known"


def test_an_end_that_is_told_while_it_is_being_stopped_is_its_end() -> None:
    stock = Stock(A)
    stock.step()
    stop, end = stock.engine.kill(A.id, TERM), stock.engine.die(A.id)
    assert stock.step(stop, end) == set()
    stock.now += RETURN
    assert stock.step() == set()
    assert stock.engine.inspected == [A.id]


def test_an_older_signal_does_not_concern_a_later_start() -> None:
    """As when a stream repeats old events."""
    stock = Stock(A)
    stock.step()
    old, end = stock.engine.kill(A.id, TERM), stock.engine.die(A.id)
    assert stock.step(stock.engine.start(A), old, end) == {"a"}
    assert stock.step(old) == {"a"}


def test_a_signal_ends_with_the_container_even_if_the_engines_clock_is_set_back() -> None:
    stock = Stock(A)
    stock.step()
    assert stock.step(stock.engine.kill(A.id, TERM)) == set()
    assert stock.step(stock.engine.die(A.id)) == set()
    stock.engine.set_clock(5)
    assert stock.step(stock.engine.start(A)) == {"a"}


def test_a_new_start_clears_the_mark_at_once(caplog: pytest.LogCaptureFixture) -> None:
    stock = Stock(A)
    stock.step()
    assert stock.step(stock.engine.kill(A.id, TERM)) == set()
    assert stock.step(stock.engine.start(A)) == {"a"}
    assert caplog.messages == []


def test_a_new_start_that_only_a_listing_could_tell_clears_the_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a restart of the engine: its rows say no more than the age."""
    stock = Stock(A, B)
    monkeypatch.setattr(stock.engine, "running", lambda: {A.id: 1, B.id: 2})
    stock.step()
    stock.step(stock.engine.kill(A.id, TERM))
    stock.engine.start(A)
    stock.engine.inspected.clear()
    stock.inventory.resync()
    assert stock.step() == {"a", "b"}
    assert stock.engine.inspected == [A.id]
    stock.inventory.resync()
    stock.step()
    assert stock.engine.inspected == [A.id], "the steady state costs no request"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (10, 120),
        (0, 120),
        (90, 120),
        (91, 121),
        (300, 330),
        (-1, 86400),
        (86399, 86400),
        (10**400, 86400),
    ],
)
def test_what_runs_on_for_too_long_returns_with_a_warning(
    timeout: int, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert (GRACE, RETURN, LONGEST) == (30, 120, 86400), "as docs/run.md says"
    stock = Stock(dataclasses.replace(A, stop_timeout=timeout))
    stock.step()
    stock.now = 1000
    stock.step(stock.engine.kill(A.id, TERM))
    stock.now += seconds - 1
    assert not stock.inventory.wait(0)
    assert stock.step() == set()
    stock.inventory.resync()
    assert stock.step() == set()
    stock.now += 1
    assert stock.step() == {"a"}
    assert caplog.messages == [
        "container a (a00000000000) was told to stop and still runs: its services return"
    ]
    stock.inventory.resync()
    assert stock.step(Event(A.id, "rename", 5)) == {"a"}
    assert not stock.inventory.wait(0)
    assert len(caplog.messages) == 1


def test_the_last_signal_begins_the_time_anew() -> None:
    stock = Stock(A)
    stock.step()
    stock.step(stock.engine.kill(A.id, TERM))
    stock.now += RETURN - 1
    stock.step(stock.engine.kill(A.id, KILL))
    stock.now += RETURN - 1
    assert stock.step() == set()
    stock.now += 1
    assert stock.step() == {"a"}
    assert stock.step(stock.engine.kill(A.id, TERM)) == set()


def test_a_signal_before_the_first_inspection() -> None:
    stock = Stock()
    stock.step()
    start = stock.engine.start(A)
    assert stock.step(start, stock.engine.kill(A.id, TERM)) == set()
    assert stock.reasons(A.id) == [Reason.WITHDRAWN]


def test_a_signal_to_a_container_of_which_nothing_else_was_told() -> None:
    stock = Stock()
    stock.step()
    stock.engine.start(A)
    assert stock.step(stock.engine.kill(A.id, HUP)) == {"a"}
    assert stock.step(stock.engine.kill(B.id, TERM)) == {"a"}
    assert stock.engine.inspected == [A.id, B.id]
    assert not stock.inventory.wait(0)


def test_a_signal_during_a_slow_inspection() -> None:
    stock = Stock(A)
    stock.step()
    stock.engine.hangs = {A.id}
    stock.step(Event(A.id, "rename", 5))
    assert stock.step(stock.engine.kill(A.id, TERM)) == set()
    stock.now += RETURN
    assert stock.sleeps(), "until it has answered"
    stock.lanes.free()
    assert stock.step() == {"a"}


def test_a_container_without_an_answer_is_withdrawn_before_it_has_one() -> None:
    stock = Stock()
    stock.engine.hangs = {A.id}
    stock.step(stock.engine.start(A), stock.engine.kill(A.id, TERM))
    assert stock.sleeps(), "until it has answered"
    stock.lanes.free()
    assert stock.step() == set()
    assert stock.reasons(A.id) == [Reason.WITHDRAWN]


def test_a_withdrawal_does_not_wait_for_the_engine() -> None:
    stock = Stock(A, B)
    stock.step()
    stock.engine.down = True
    stock.inventory.resync()
    with pytest.raises(EngineUnavailable):
        stock.step(stock.engine.kill(A.id, TERM))
    assert stock.known() == {"b"}


def test_an_inspection_that_fails_returns_nothing() -> None:
    stock = Stock(A)
    stock.step()
    stock.step(stock.engine.kill(A.id, TERM))
    stock.engine.stuck = {A.id}
    stock.now += RETURN
    assert stock.step() == set()
    stock.engine.stuck = set()
    stock.now += RETURN
    assert stock.step() == {"a"}


def test_on_success_never_keeps_what_was_told_to_stop() -> None:
    stock = Stock(A, B, keep_failed=True)
    stock.step()
    told = stock.engine.kill(A.id, TERM)
    assert stock.step(told, *(stock.engine.die(each.id, 3) for each in (A, B))) == {"b"}
    stock.now += LONGEST
    stock.inventory.resync()
    assert stock.step() == {"b"}
    assert stock.board.offers.keys() == {B.id}


def test_on_success_keeps_what_failed_after_another_signal() -> None:
    stock = Stock(A, keep_failed=True)
    stock.step()
    assert stock.step(stock.engine.kill(A.id, HUP), stock.engine.die(A.id, 3)) == {"a"}


def test_a_thread_that_could_not_act_leaves_the_work_to_the_inventorys_own() -> None:
    stock = Stock(A)
    stock.step()
    assert not stock.inventory.wait(0)
    assert stock.inventory.mark(stock.engine.kill(A.id, TERM))
    assert stock.inventory.wait(0)
    assert not stock.inventory.mark(stock.engine.kill(A.id, None)), "nothing is due for it"


def test_the_thread_that_read_the_event_removes_the_entry() -> None:
    stock, registry = Stock(A), FakeRegistry()
    reconciler = Reconciler(RegistryReport("fake://"), lambda *_: FakeBackend(registry, HOST), HOST)
    stock.step()
    reconciler.publish(stock.published[-1])
    reconciler.step()
    reconciler._due = 1e9  # as its own thread leaves it
    assert registry.entries.keys() == {"h:a:80"}
    assert stock.inventory.mark(stock.engine.kill(A.id, TERM))
    act_here(stock.inventory, [reconciler])
    assert registry.entries == {}
    assert stock.engine.inspected == [A.id]


def test_who_shares_the_network_of_what_is_being_stopped_stays() -> None:
    peer = container("b", network_mode=f"container:{A.id}")
    stock = Stock(A, peer)
    stock.step()
    assert stock.step(stock.engine.kill(A.id, TERM)) == {"b"}


def test_a_paused_container_is_withdrawn_for_as_long_as_it_is_paused() -> None:
    stock = Stock(A, B)
    stock.step()
    assert stock.step(stock.engine.pause(A.id)) == {"b"}
    assert stock.reasons(A.id) == [Reason.PAUSED]
    stock.inventory.resync()
    assert stock.step() == {"b"}
    stock.engine.inspected.clear()
    assert stock.step(stock.engine.pause(A.id, False)) == {"a", "b"}
    assert stock.engine.inspected == [A.id]


def test_an_agent_that_starts_finds_paused_containers() -> None:
    assert Stock(dataclasses.replace(A, paused=True), B).step() == {"b"}


def test_without_the_option_paused_containers_stay() -> None:
    stock = Stock(A, rules=dataclasses.replace(RULES, on_pause=False))
    stock.step()
    assert stock.step(stock.engine.pause(A.id)) == {"a"}


SIGNALS = st.sampled_from([1, TERM, KILL, QUIT, 37])
KILLS = st.lists(st.builds(Kill, SIGNALS, st.integers(0, 9), st.floats(0, 9)), max_size=6)
STOPPED = st.builds(
    dataclasses.replace,
    st.just(A),
    stop_signal=st.sampled_from([0, TERM, QUIT, 37]),
    stop_timeout=st.integers(-1, 10**9),
    started_at=st.integers(0, 9),
)


@given(kills=KILLS, stopped=STOPPED)
def test_what_the_signals_say(kills: list[Kill], stopped: Container) -> None:
    withdrawn = Withdrawn()
    for kill in kills:
        withdrawn.note(A.id, kill)
    withdrawn.note(B.id, Kill(TERM, 10**9, 10**9))
    last = {kill.signal: kill for kill in kills}.values()
    counts = [
        kill.told
        for kill in last
        if stopped.stop_signal
        and kill.signal in {TERM, KILL, stopped.stop_signal}
        and kill.time > stopped.started_at
    ]
    until = withdrawn.until(stopped)
    assert (until > 0) == bool(counts)
    if counts:
        limit = stopped.stop_timeout
        wait = until - max(counts)
        assert wait >= RETURN - 1e-6
        assert wait <= LONGEST + 1e-6
        assert limit < 0 or limit > LONGEST - GRACE or wait >= limit + GRACE - 1e-6
    withdrawn.forget(A.id)
    assert withdrawn.until(stopped) == 0
