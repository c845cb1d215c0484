"""A snapshot carries the moments of the events that it reflects first."""

from __future__ import annotations

from support.fakes import FakeEngine, Lanes, container

from registrator.desired.inventory import Inventory
from registrator.desired.rules import Rules
from registrator.model import Event, Snapshot

A, B = container("a"), container("b")


class Stock:
    """An inventory over a fake engine, with a clock to turn."""

    def __init__(self) -> None:
        self.engine = FakeEngine(A)
        self.now = 100.0
        self.lanes = Lanes(busy=True)
        self.published: list[Snapshot] = []
        self.inventory = Inventory(
            self.engine,
            Rules(hostname="h", forced_ip="127.0.0.7", on_stop=True),
            self.published.append,
            clock=lambda: self.now,
            lanes=self.lanes,
        )
        self.inventory.resync()
        self.inventory.step()

    def step(self, *events: Event) -> list[tuple[float, ...]]:
        """Take in the events, each 1 s after the other. Returns what new snapshots carry."""
        self.published.clear()
        for event in events:
            self.now += 1
            self.inventory.mark(event)
        self.now += 1
        self.inventory.step()
        return [snapshot.received for snapshot in self.published]


def test_a_listing_carries_none() -> None:
    stock = Stock()
    assert [snapshot.received for snapshot in stock.published] == [()]


def test_the_first_event_of_each_container_counts() -> None:
    stock = Stock()
    start = stock.engine.start(B)
    stop = stock.engine.die(A.id)
    assert stock.step(start, stop, Event(A.id, "destroy", stop.time + 1)) == [(101.0, 102.0)]
    stock.engine.containers[B.id] = container("b", host_port=1)
    assert stock.step(Event(B.id, "connect", 5)) == [(106.0,)]


def test_a_signal_counts() -> None:
    stock = Stock()
    assert stock.step(stock.engine.kill(A.id, 15)) == [(101.0,)]
    assert stock.step(stock.engine.start(B)) == [(103.0,)], "each moment is carried once"


def test_an_event_without_a_consequence_is_forgotten() -> None:
    stock = Stock()
    assert stock.step(Event(A.id, "rename", 5)) == []
    assert stock.step(stock.engine.start(B)) == [(103.0,)]


def test_the_event_of_a_slow_container_waits_for_its_inspection() -> None:
    stock = Stock()
    stock.engine.hangs = {B.id}
    assert stock.step(stock.engine.start(B), stock.engine.die(A.id)) == [(102.0,)]
    stock.engine.hangs = set()
    stock.lanes.free()
    assert stock.step() == [(101.0,)]
