"""The inventory: events, faults of the engine, and what snapshot comes of them."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fakes import FakeEngine, container
from support.wait import until

from registrator.desired import inventory
from registrator.desired.inventory import PORTION, Inventory
from registrator.desired.restart_loops import LOOP_STARTS, SETTLE
from registrator.desired.rules import Rules
from registrator.model import Container, EngineUnavailable, Event, Port, Reason, Snapshot
from registrator.status.board import Board
from registrator.system import retry


class Stock:
    """An inventory over a fake engine, with a clock to turn and the snapshots it published."""

    def __init__(self, *containers: Container, **options: Any) -> None:
        self.engine = FakeEngine(*containers)
        self.now = 0.0
        self.published: list[Snapshot] = []
        self.board = Board()
        self.inventory = Inventory(
            self.engine,
            Rules(hostname="h", forced_ip="127.0.0.7"),
            self.published.append,
            board=self.board,
            clock=lambda: self.now,
            **options,
        )
        self.inventory.resync()

    def step(self, *events: Event) -> set[str]:
        """Take in the events. Returns the ids of the services then known."""
        for event in events:
            self.inventory.mark(event)
        self.inventory.step()
        return set(self.published[-1].services) if self.published else set()

    def reasons(self) -> dict[str, list[Reason]]:
        """Why a container's ports are left out, by the container's name, as the board has it."""
        offers = self.board.offers.items()
        return {key.rstrip("0"): [each.reason for each in offer.left_out] for key, offer in offers}


def test_lists_then_follows_events() -> None:
    stock = Stock(container("a"))
    assert stock.step() == {"h:a:80"}
    assert stock.step(stock.engine.start(container("b"))) == {"h:a:80", "h:b:80"}
    assert stock.step(stock.engine.die(container("a").id)) == {"h:b:80"}
    assert len(stock.published) == 3


def test_die_needs_no_inspection() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.inspected.clear()
    assert stock.step(stock.engine.die(container("a").id)) == set()
    assert stock.engine.inspected == []


def test_networks_matter_only_while_a_container_runs() -> None:
    stock, moved = Stock(container("a")), container("b").id
    stock.step()
    stock.engine.inspected.clear()
    stock.step(Event(moved, "connect", 5))
    assert stock.engine.inspected == [], "its start would be waited for"
    stock.step(stock.engine.start(container("b")), Event(moved, "connect", 6))
    assert stock.engine.inspected == [moved]
    stock.engine.containers[moved] = container("b", host_port=1)
    stock.step(Event(moved, "disconnect", 7))
    assert stock.published[-1].services["h:b:80"].port == 1
    stock.step(stock.engine.die(moved), Event(moved, "disconnect", 8))
    assert stock.engine.inspected == [moved, moved]


def test_networks_of_an_unknown_container_make_nothing_due() -> None:
    """A start tells of its networks before, and an end after: that must not delay a write."""
    stock = Stock(container("a"))
    stock.step()
    assert not stock.inventory.mark(Event(container("b").id, "connect", 5))
    assert stock.inventory.mark(Event(container("a").id, "connect", 6))


def test_a_network_joined_during_the_first_inspection(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, new = Stock(), container("b")
    stock.step()
    inspect = stock.engine.inspect

    def slow(container_id: str, timeout: float | None = None) -> Container | None:
        answer = inspect(container_id, timeout)
        stock.engine.containers[new.id] = container("b", host_port=1)
        stock.inventory.mark(Event(new.id, "connect", 5))
        return answer

    monkeypatch.setattr(stock.engine, "inspect", slow)
    assert stock.step(stock.engine.start(new)) == {"h:b:80"}
    monkeypatch.undo()
    assert stock.inventory.wait(0)
    stock.step()
    assert stock.published[-1].services["h:b:80"].port == 1


def test_a_network_joined_while_the_engine_is_down() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.down = True
    with pytest.raises(EngineUnavailable):
        stock.step(stock.engine.start(container("b")))
    with pytest.raises(EngineUnavailable):
        stock.step(Event(container("b").id, "connect", 5))
    stock.engine.down = False
    assert stock.step() == {"h:a:80", "h:b:80"}


def test_only_what_the_listing_shows_changed_is_inspected() -> None:
    stock = Stock(container("a"), container("b"))
    stock.step()
    stock.engine.inspected.clear()
    stock.engine.containers[container("b").id] = container("b", host_port=1, started_at=2)
    stock.inventory.resync()
    stock.step()
    assert stock.engine.inspected == [container("b").id]
    assert stock.published[-1].services["h:b:80"].port == 1


def test_a_resync_finds_what_no_event_told() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.die(container("a").id)
    stock.engine.start(container("b"))
    stock.inventory.resync()
    assert stock.step() == {"h:b:80"}


def test_a_new_event_stream_finds_what_no_event_told() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.start(container("b"))
    stock.inventory.events_connected()
    assert stock.inventory.wait(0)
    assert stock.step() == {"h:a:80", "h:b:80"}


def test_nothing_new_publishes_nothing() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.inventory.resync()
    stock.step(Event(container("a").id, "start", 5), Event("unheard-of", "die", 6))
    assert len(stock.published) == 1


def test_an_engine_that_is_down_changes_nothing_and_loses_no_event() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.down = True
    started = stock.engine.start(container("b"))
    with pytest.raises(EngineUnavailable):
        stock.step(started)
    with pytest.raises(EngineUnavailable):
        stock.step()
    assert set(stock.published[-1].services) == {"h:a:80"}
    stock.engine.down = False
    assert stock.step() == {"h:a:80", "h:b:80"}


def test_an_engine_that_goes_down_between_two_inspections_loses_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone, first, second = container("gone"), container("first"), container("second")
    stock = Stock(gone)
    stock.step()
    events = [stock.engine.die(gone.id), stock.engine.start(first), stock.engine.start(second)]
    inspect = stock.engine.inspect

    def going_down(container_id: str, timeout: float | None = None) -> Container | None:
        stock.engine.down = container_id == second.id
        return inspect(container_id, timeout)

    monkeypatch.setattr(stock.engine, "inspect", going_down)
    with pytest.raises(EngineUnavailable):
        stock.step(*events)
    monkeypatch.undo()
    stock.engine.down = False
    assert stock.step() == {"h:first:80", "h:second:80"}


def test_a_container_that_cannot_be_inspected_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stock = Stock(container("a"), container("b"))
    stock.engine.stuck = {container("a").id}
    assert stock.step() == {"h:b:80"}
    assert not stock.published[-1].complete
    assert "cannot be inspected (timed out)" in caplog.text
    stock.engine.stuck = set()
    stock.now += 60
    assert stock.step() == {"h:a:80", "h:b:80"}
    assert stock.published[-1].complete


def test_publishes_in_growing_portions_where_looking_takes_long() -> None:
    stock = Stock(*(container(name) for name in "abcdefghijkl"))

    def slow() -> None:
        stock.now += 0.035  # The first portion takes 0.05 s.

    stock.engine.slow = slow
    sizes: list[int] = []
    while not sizes or sizes[-1] < 12:
        assert stock.inventory.wait(0), "the rest is to be gone on with at once"
        sizes.append(len(stock.step()))
        last = stock.published[-1]
        assert (last.complete, last.settled) == (sizes[-1] == 12,) * 2
    assert sizes == [2, 5, 11, 12]
    stock.engine.slow = lambda: None
    stock.step(stock.engine.start(container("m")))
    assert len(stock.engine.inspected) == 13, "none is looked at twice"
    assert stock.published[-1].settled


def test_a_failing_engine_settles_nothing() -> None:
    stock = Stock(container("a"), container("b"))

    def slow() -> None:
        stock.now += 2 * PORTION

    stock.engine.slow = slow
    stock.step()
    assert [snapshot.settled for snapshot in stock.published] == [False]
    stock.engine.down = True
    with pytest.raises(EngineUnavailable):
        stock.step()
    stock.engine.down = False
    assert stock.step() == {"h:a:80", "h:b:80"}
    assert [snapshot.settled for snapshot in stock.published] == [False, True]


def test_an_uninspectable_container_that_goes_completes_the_snapshot() -> None:
    stock = Stock(container("a"), container("b"))
    stock.engine.stuck = {container("a").id}
    stock.step()
    stock.engine.remove(container("a").id)
    stock.inventory.resync()
    stock.step()
    assert stock.published[-1].complete


def test_what_was_known_of_a_stuck_container_stays() -> None:
    stock = Stock(container("a"))
    stock.step()
    stock.engine.stuck = {container("a").id}
    stock.step(Event(container("a").id, "rename", 5))
    assert set(stock.published[-1].services) == {"h:a:80"}
    assert stock.published[-1].complete


def test_a_rename_moves_the_service() -> None:
    stock = Stock(container("a"))
    stock.step()
    renamed = dataclasses.replace(container("a"), name="z")
    stock.engine.containers[renamed.id] = renamed
    assert stock.step(Event(renamed.id, "rename", 5)) == {"h:z:80"}


def test_old_events_repeated_by_the_stream_do_not_end_a_newer_run() -> None:
    stock = Stock(container("a", started_at=100))
    stock.step()
    assert stock.step(Event(container("a").id, "die", 99)) == {"h:a:80"}
    assert stock.step(Event(container("a").id, "die", 101)) == set()


@pytest.mark.parametrize(
    ("exit_code", "stays"), [(0, False), (1, True), (127, True), (128, False), (137, False)]
)
def test_on_success(exit_code: int, stays: bool) -> None:
    stock = Stock(container("a"), keep_failed=True)
    stock.step()
    died = stock.engine.die(container("a").id, exit_code)
    for known in (stock.step(died), stock.step(dataclasses.replace(died, exit_code=None))):
        assert known == ({"h:a:80"} if stays else set())
    stock.inventory.resync()
    assert stock.step() == ({"h:a:80"} if stays else set())
    assert stock.step(stock.engine.remove(container("a").id)) == set()


def test_a_failed_container_loses_its_services() -> None:
    stock = Stock(container("a"))
    stock.step()
    assert stock.step(stock.engine.die(container("a").id, 1)) == set()


def test_the_last_started_has_a_contested_id(caplog: pytest.LogCaptureFixture) -> None:
    def claims(name: str, port: int) -> Container:
        return container(name, port, env={"SERVICE_ID": "one"})

    stock = Stock()
    stock.step(stock.engine.start(claims("a", 1)), stock.engine.start(claims("b", 2)))
    assert stock.published[-1].services["one"].port == 2
    assert caplog.messages == [
        "container a (a00000000000): not registered: 80/tcp:"
        " container b has the same id 'one', and keeps it, as it started later"
    ]
    stock.step(stock.engine.die(claims("a", 1).id), stock.engine.start(claims("a", 1)))
    assert stock.published[-1].services["one"].port == 1
    stock.step(stock.engine.die(claims("a", 1).id))
    assert stock.published[-1].services["one"].port == 2


def test_the_last_started_has_a_contested_id_in_whatever_order_a_listing_has_them() -> None:
    stock = Stock()
    stock.step()
    for name, started_at in (("new", 20), ("old", 10)):
        made = container(name, started_at, env={"SERVICE_ID": "one"}, started_at=started_at)
        stock.engine.containers[made.id] = made
    stock.inventory.resync()
    stock.step()
    assert stock.published[-1].services["one"].port == 20


def test_services_are_in_the_order_of_the_starts_of_the_containers_that_have_them() -> None:
    """If several have one place in a registry, the last one has it."""
    one = {"SERVICE_ID": "one"}
    made = [container(name, env=one if name in "ac" else {}) for name in "abc"]
    stock = Stock()
    stock.step(*map(stock.engine.start, made))
    assert list(stock.published[-1].services) == ["h:b:80", "one"]


def test_an_end_counts_if_neither_it_nor_the_start_has_a_time() -> None:
    stock = Stock(container("a", started_at=0))
    stock.step()
    stock.engine.inspected.clear()
    assert stock.step(Event(container("a").id, "die", 0)) == set()
    assert stock.engine.inspected == []


@pytest.mark.parametrize("names", ["abc", "cab", "bca"])
def test_the_order_of_a_listing_decides_nothing_but_who_is_looked_at_first(names: str) -> None:
    """All three started at the same moment and claim one id."""
    stock = Stock(*(container(name, env={"SERVICE_ID": "one"}) for name in names))
    assert stock.step() == {"one"}
    assert stock.published[-1].services["one"].container_name == "c"
    assert [found[:1] for found in stock.engine.inspected] == list(names)


def test_a_shared_network_follows_its_peer() -> None:
    peer = container("peer", env={"SERVICE_IGNORE": "1"})
    guest = container("guest", ports=(Port(80, "tcp"),), network_mode=f"container:{peer.id}")
    stock = Stock(peer, guest)
    assert stock.step() == {"h:guest:80"}
    assert stock.published[-1].services["h:guest:80"].address == "172.17.0.2"
    moved = dataclasses.replace(peer, networks={"bridge": "172.17.0.9"})
    stock.step(stock.engine.start(moved))
    assert stock.published[-1].services["h:guest:80"].address == "172.17.0.9"
    assert stock.step(stock.engine.remove(peer.id)) == set()


@pytest.mark.parametrize("gone", [False, True])
def test_a_shared_network_whose_container_is_still_to_be_looked_at(
    gone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = container("peer", env={"SERVICE_IGNORE": "1"})
    guest = container("guest", ports=(Port(80, "tcp"),), network_mode=f"container:{peer.id}")
    stock = Stock(guest, peer)

    def slow() -> None:
        stock.now += 2 * PORTION

    stock.engine.slow = slow
    assert stock.step() == set()
    assert not caplog.messages, "nobody knows yet whether it is there"
    if gone:
        stock.engine.remove(peer.id)
    assert stock.step() == (set() if gone else {"h:guest:80"})
    assert ("is not there" in caplog.text) == gone


def test_a_restart_loop_is_left_alone_until_it_settles(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stock = Stock(container("a"))
    stock.step()
    for _ in range(20):
        stock.now += 0.1
        stock.step(stock.engine.die(container("a").id), stock.engine.start(container("a")))
        stock.now += 0.1
        stock.step(stock.engine.start(container("b")))
    published = len(stock.published)
    assert published <= 2 * LOOP_STARTS + 2
    stock.now += SETTLE
    stock.step()
    assert stock.step() == {"h:a:80", "h:b:80"}


def test_a_failing_container_in_a_restart_loop_loses_the_services_that_it_kept() -> None:
    stock = Stock(container("a"), keep_failed=True)
    stock.step()
    known = []
    for _ in range(LOOP_STARTS):
        stock.now += 0.1
        died = stock.engine.die(container("a").id, 1)
        known.append(stock.step(died, stock.engine.start(container("a"))))
    assert known == [{"h:a:80"}] * (LOOP_STARTS - 1) + [set()]
    stock.now += SETTLE
    assert stock.step() == {"h:a:80"}


def test_restarts_that_are_told_at_once_but_were_apart_are_no_loop() -> None:
    """As when the engine could not be reached meanwhile."""
    stock = Stock(container("a"))
    stock.step()
    events = []
    for minute in range(1, 6):
        stock.engine.set_clock(minute * 60 * 10**9)
        events += [stock.engine.die(container("a").id), stock.engine.start(container("a"))]
    assert stock.step(*events) == {"h:a:80"}
    assert all(snapshot.services for snapshot in stock.published)


def test_an_end_counts_after_the_engines_clock_was_set_back() -> None:
    stock = Stock()
    stock.step(stock.engine.start(container("a")))
    stock.engine.set_clock(1)
    assert stock.step(stock.engine.die(container("a").id)) == set()


def test_a_start_counts_after_the_engines_clock_was_set_back() -> None:
    stock = Stock(container("a"))
    stock.step()
    died = stock.engine.die(container("a").id)
    stock.engine.set_clock(1)
    assert stock.step(died, stock.engine.start(container("a"))) == {"h:a:80"}


def test_warnings_are_given_once(caplog: pytest.LogCaptureFixture) -> None:
    bad = container("a", env={"SERVICE_NAME": "no\x00good"})
    stock = Stock(bad)
    stock.step()
    stock.step(Event(bad.id, "rename", 5))
    stock.engine.containers[bad.id] = dataclasses.replace(bad, networks={"other": "172.18.0.9"})
    stock.step(Event(bad.id, "connect", 6))
    assert len([record for record in caplog.records if "SERVICE_NAME" in record.message]) == 1


def test_an_end_told_of_late_does_not_undo_a_newer_start() -> None:
    stock = Stock(container("a"))
    stock.step()
    died = stock.engine.die(container("a").id)
    started = stock.engine.start(container("a", 5))
    assert stock.step(started, died) == {"h:a:80"}
    assert stock.published[-1].services["h:a:80"].port == 5


def test_an_end_told_of_late_does_not_undo_a_start_that_is_left_for_later() -> None:
    stock = Stock(container("a"))
    stock.step()

    died = stock.engine.die(container("a").id)
    stock.step(died)

    def slow() -> None:
        stock.now += 2 * PORTION
        stock.inventory.mark(died)

    stock.engine.slow = slow
    started = [stock.engine.start(container(name)) for name in "ba"]
    assert stock.step(*started) == {"h:b:80"}
    assert stock.step() == {"h:a:80", "h:b:80"}


def test_what_hung_once_is_tried_again_only_when_nobody_waits() -> None:
    stock = Stock(container("a"), container("b"))
    stock.engine.stuck = {container("a").id}
    stock.step()
    stock.now += 60
    stock.engine.inspected.clear()
    stock.step(Event(container("b").id, "rename", 5))
    assert stock.engine.inspected == [container("b").id]
    stock.step()
    assert stock.engine.inspected == [container("b").id, container("a").id]


def test_of_many_that_hung_one_is_tried_at_a_time() -> None:
    hung = [container(name) for name in "abc"]
    stock = Stock(*hung)
    stock.engine.stuck = {each.id for each in hung}
    stock.step()
    stock.now += 60
    stock.engine.inspected.clear()
    for number in range(1, 4):
        stock.step()
        assert len(set(stock.engine.inspected)) == number, "what happens meanwhile waits for one"


def test_of_many_that_hung_none_waits_for_ever() -> None:
    hung = [container(name) for name in "abcdefgh"]
    stock = Stock(*hung)
    stock.engine.stuck = {each.id for each in hung}

    def deadline() -> None:
        stock.now += 5

    stock.engine.slow = deadline
    for _ in range(60):
        stock.step()
    stock.engine.inspected.clear()
    for _ in hung:
        stock.step()
    assert set(stock.engine.inspected) == {each.id for each in hung}


def test_a_listing_does_not_make_what_hung_due() -> None:
    stock = Stock(container("a"), container("b"))
    stock.engine.stuck = {container("a").id}
    stock.step()
    stock.engine.inspected.clear()
    stock.inventory.resync()
    stock.step()
    assert stock.engine.inspected == []
    stock.engine.start(container("a", 5))
    stock.inventory.resync()
    stock.step()
    assert stock.engine.inspected == [container("a").id], "it is another one now"


def test_events_go_before_what_is_left_of_a_listing() -> None:
    stock = Stock(*(container(name) for name in "abc"))

    def slow() -> None:
        stock.now += 2 * PORTION

    stock.engine.slow = slow
    stock.step()
    stock.step(stock.engine.start(container("d")))
    assert stock.engine.inspected[1] == container("d").id


def test_a_stuck_container_that_ends_is_not_tried_again() -> None:
    stock = Stock(container("a"))
    stock.engine.stuck = {container("a").id}
    stock.step()
    stock.step(stock.engine.die(container("a").id))
    assert stock.published[-1].complete
    stock.now += 60
    stock.engine.inspected.clear()
    stock.step()
    assert stock.engine.inspected == []


def test_another_address_of_the_host_is_followed() -> None:
    stock = Stock(container("a"))
    stock.step()
    assert stock.published[-1].services["h:a:80"].address == "127.0.0.7"
    stock.inventory.use_rules(Rules(hostname="h", host_ip="127.0.0.8"), frozenset({"127.0.0.8"}))
    assert stock.inventory.wait(0), "no event is needed"
    stock.step()
    assert stock.published[-1].services["h:a:80"].address == "127.0.0.8"
    assert stock.published[-1].addresses == {"127.0.0.8"}


def test_what_is_left_out_on_purpose_is_told_once_a_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    exposed = container("a", ports=(Port(80, "tcp"),))
    stock = Stock(exposed)

    def told() -> list[tuple[str, str]]:
        stock.step()
        lines = [(each.levelname, each.getMessage()) for each in caplog.records]
        caplog.clear()
        return [line for line in lines if "not registered" in line[1]]

    line = "container a (a00000000000): not registered: 80/tcp: it is not published"
    assert told() == [("DEBUG", line)]
    stock.inventory.resync()
    assert told() == []
    stock.engine.containers[exposed.id] = dataclasses.replace(exposed, networks={"b": "10.1.0.2"})
    stock.inventory.mark(Event(exposed.id, "connect", 5))
    assert told() == [], "it is still so"
    stock.engine.containers[exposed.id] = dataclasses.replace(exposed, ports=())
    stock.inventory.mark(Event(exposed.id, "rename", 6))
    assert told() == [("DEBUG", "container a (a00000000000): not registered: it has no ports")]
    stock.engine.containers[exposed.id] = container("a")
    stock.inventory.mark(Event(exposed.id, "rename", 7))
    assert told() == []
    assert set(stock.published[-1].services) == {"h:a:80"}


def test_the_board_has_each_containers_offer_and_why_it_is_left_out() -> None:
    def claims(name: str) -> Container:
        return container(name, env={"SERVICE_ID": "one"})

    stock = Stock(container("a"), container("stuck"), container("bare", ports=()))
    stock.engine.stuck = {container("stuck").id}
    stock.step(stock.engine.start(claims("old")), stock.engine.start(claims("new")))
    assert stock.reasons() == {
        "a": [], "stuck": [Reason.NOT_INSPECTED], "bare": [Reason.NO_PORTS],
        "old": [Reason.SAME_ID], "new": [],
    }  # fmt: skip
    offers = stock.board.offers
    assert [service.id for service in offers[container("a").id].services] == ["h:a:80"]
    assert offers[container("old").id].services == ()
    assert [service.id for service in offers[container("new").id].services] == ["one"]
    stock.step(stock.engine.die(container("new").id))
    assert stock.reasons()["old"] == []
    assert container("new").id not in stock.board.offers


def test_the_board_has_the_snapshot_and_the_facts_of_each_container() -> None:
    stock = Stock(container("a"), container("stuck"))
    stock.engine.stuck = {container("stuck").id}
    stock.step()
    latest = stock.board.latest
    assert latest is not None
    assert latest.services.keys() == {"h:a:80"}
    offers = stock.board.offers
    assert offers[container("a").id].container == stock.engine.containers[container("a").id]
    assert offers[container("stuck").id].container is None
    for _ in range(2 * LOOP_STARTS):
        stock.now += 0.1
        stock.step(stock.engine.start(container("a")))
    assert stock.reasons()["a"] == [Reason.RESTART_LOOP]
    looping = stock.board.offers[container("a").id].container
    assert looping is not None
    assert looping.name == "a"


def test_the_board_and_one_line_tell_of_a_restart_loop(caplog: pytest.LogCaptureFixture) -> None:
    stock = Stock()
    stock.step()
    for _ in range(2 * LOOP_STARTS):
        stock.now += 0.1
        stock.step(stock.engine.start(container("a")))
    assert stock.reasons() == {"a": [Reason.RESTART_LOOP]}
    assert caplog.messages == [
        "container a00000000000 is in a restart loop: left out until 1 s pass without a start"
    ]
    stock.now += SETTLE
    stock.step()
    assert stock.reasons() == {"a": []}


def test_a_resync_is_due_by_itself() -> None:
    stock = Stock(resync=60)
    stock.step()
    stock.engine.start(container("a"))
    stock.now += 59
    assert stock.step() == set()
    stock.now += 1
    assert not stock.inventory.wait(3600), "it is due, and nothing was noted"
    assert stock.step() == {"h:a:80"}


def test_without_a_resync_only_events_tell_of_changes() -> None:
    stock = Stock()
    stock.step()
    stock.engine.start(container("a"))
    stock.now += 10**6
    assert stock.step() == set()


class Here(Stock):
    """A stock whose first step is done. `act` does as a thread that read these events."""

    def __init__(self, *containers: Container) -> None:
        super().__init__(*containers)
        self.step()
        self.published.clear()

    def act(self, *events: Event) -> list[set[str]]:
        """The ids in each snapshot that the calling thread publishes."""
        found: list[Snapshot] = []
        assert [self.inventory.mark(event) for event in events] == [True] * len(events)
        self.inventory.step_here(found.append)
        return [set(snapshot.services) for snapshot in found]

    @property
    def left(self) -> bool:
        """Whether something is left to do for the inventory's own thread."""
        return self.inventory.wait(0)


def test_an_event_without_a_container_makes_a_listing_due() -> None:
    here = Here(container("a"))
    assert here.act(Event("", "", 5)) == []
    assert here.left


def test_the_thread_that_read_an_event_acts_on_it() -> None:
    here = Here(container("a"))
    assert here.act(here.engine.start(container("b"))) == [{"h:a:80", "h:b:80"}]
    assert here.act(here.engine.die(container("a").id)) == [{"h:b:80"}]
    assert here.published == []
    assert not here.left


def test_a_listing_is_left_to_the_inventorys_own_thread() -> None:
    here = Here(container("a"))
    here.inventory.resync()
    assert here.act(here.engine.start(container("b"))) == []
    assert here.left
    assert here.step() == {"h:a:80", "h:b:80"}


def test_what_an_engine_fails_is_left_to_the_inventorys_own_thread() -> None:
    here = Here(container("a"))
    here.engine.down = True
    assert here.act(here.engine.start(container("b"))) == []
    assert here.left
    here.engine.down = False
    assert here.step() == {"h:a:80", "h:b:80"}


def test_while_the_engine_fails_all_is_left_to_the_inventorys_own_thread() -> None:
    here = Here(container("a"))
    here.board.engine.failed("it does not answer")
    assert here.act(here.engine.start(container("b"))) == []
    assert here.engine.inspected == [container("a").id]
    assert here.left


def test_one_step_at_a_time() -> None:
    """An event that comes during a step waits for the end of it."""
    here = Here(container("a"))
    inner: list[list[set[str]]] = []

    def during() -> None:
        here.engine.slow = lambda: None
        inner.append(here.act(here.engine.die(container("a").id)))

    here.engine.slow = during
    assert here.act(here.engine.start(container("b"))) == [{"h:a:80", "h:b:80"}]
    assert inner == [[]]
    assert here.left
    assert here.step() == {"h:b:80"}


def test_the_own_thread_tries_again_what_another_thread_could_not_inspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may sleep at that moment, for longer than until the next attempt."""
    engine, stop = FakeEngine(), threading.Event()
    monkeypatch.setattr(inventory, "HEARTBEAT", 3600.0)
    published: list[Snapshot] = []
    made = Inventory(engine, Rules("h", "127.0.0.7"), published.append)
    running = threading.Thread(target=made.run, args=(stop,))
    running.start()
    until(lambda: published, "the first snapshot")
    engine.stuck = {container("b").id}
    made.mark(engine.start(container("b")))
    made.step_here(published.append)
    engine.stuck = set()
    until(lambda: "h:b:80" in published[-1].services, "the next attempt")
    stop.set()
    made.resync()
    running.join(60)
    assert not running.is_alive()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long an inventory waits each time, instead of the wait."""
    found: list[float | None] = []

    class Noting(threading.Condition):
        def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
            found.append(timeout)
            return predicate()

    monkeypatch.setattr(threading, "Condition", Noting)
    return found


def test_it_waits_until_something_is_due(waits: list[float | None]) -> None:
    stock = Stock(container("a"), resync=60)
    stock.engine.stuck = {container("a").id}
    stock.step()
    for passed in (0.0, 0.25, 0.25, 5.0):
        stock.now += passed
        assert not stock.inventory.wait(10)
    assert waits == [0.5, 0.25, 0, 0]
    waits.clear()
    stock.engine.stuck = set()
    stock.step()
    for passed in (0.0, 50.0, 4.5, 1.0):
        stock.now += passed
        stock.inventory.wait(10)
    assert waits == [10, 4.5, 0, 0], "the listing is due"


def test_a_silent_engine_is_asked_every_ten_seconds(waits: list[float | None]) -> None:
    stock, stop = Stock(), threading.Event()
    stock.step()
    ping = stock.engine.ping

    def last() -> None:
        stop.set()
        ping()

    stock.engine.ping = last  # type: ignore[method-assign]
    stock.inventory.run(stop)
    assert waits == [10]
    assert stock.board.engine.row.last_success


class Running:
    """An inventory whose `run` goes on in a thread, on a fake engine and the real clock."""

    def __init__(self) -> None:
        self.engine = FakeEngine(container("a"))
        self.board = Board()
        self.inventory = Inventory(
            self.engine, Rules(hostname="h", forced_ip="127.0.0.7"), lambda _: None,
            board=self.board,
        )  # fmt: skip
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.inventory.run, args=(self.stop,))

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.inventory.resync()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def until(self, error: str) -> None:
        """Wait until the engine's row tells this. Empty for an engine that answers."""
        report = self.board.engine
        until(
            lambda: report.row.last_success and report.row.error == error,
            lambda: str(report.row),
        )


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(retry, "MAX_ENGINE_WAIT", 0.01)
    monkeypatch.setattr(inventory, "HEARTBEAT", 0.05)
    with Running() as made:
        yield made


def test_an_engine_that_falls_silent_is_found_and_its_stream_ended(running: Running) -> None:
    running.until("")
    running.engine.down = True
    running.until("connection refused")
    until(lambda: running.engine.interrupted, "the end of its stream")
    running.engine.down = False
    running.until("")


def test_a_stream_that_fails_alone_is_the_engines_fault_and_is_left_alone(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupting it would end the next one, which may stand already."""
    running.until("")
    running.inventory.events_lost("the event stream ended")
    running.until("the event stream ended")
    assert not running.engine.interrupted
    running.inventory.events_connected()
    running.until("")
    assert caplog.messages[0] == "Docker engine: the event stream ended; retrying"


def test_changes_are_found_while_there_are_no_events(running: Running) -> None:
    running.until("")
    running.inventory.events_lost("forbidden")
    running.engine.start(container("b"))
    running.inventory.events_lost("forbidden")
    until(lambda: container("b").id in running.board.offers, "b's offer")


def test_events_may_come_at_any_moment_of_a_step() -> None:
    """A step looks through all containers while another thread notes new ones."""
    engine = FakeEngine()
    inventory = Inventory(engine, Rules("h", "192.0.2.1"), lambda _: None)
    done = threading.Event()

    def note() -> None:
        for number in range(20_000):
            inventory.mark(Event(f"id{number}", "start", number))
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    noting = threading.Thread(target=note)
    try:
        noting.start()
        while not done.is_set():
            inventory.step()
    finally:
        noting.join(60)
        sys.setswitchinterval(interval)

    def settled() -> bool:
        # A step ends early if it takes long, and leaves the rest to the next one.
        inventory.step()
        noted = inventory.wait(0)
        return not noted

    until(settled, "all events to be taken in")
