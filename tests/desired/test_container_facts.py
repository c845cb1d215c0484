"""The facts that the lines about containers give to programs: which container, and what it is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.fakes import FakeEngine, container

from registrator.desired.inventory import Inventory
from registrator.desired.restart_loops import LOOP_STARTS
from registrator.desired.rules import Rules
from registrator.model import Event
from registrator.system.log import KEYS

A = container("a").id


class Stock:
    """An inventory over a fake engine, and the facts of the lines that it logs."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.engine = FakeEngine(container("a"))
        self.now = 0.0
        rules = Rules("h", forced_ip="127.0.0.7")
        self._inventory = Inventory(
            self.engine, rules, lambda _: None, clock=lambda: self.now, addresses=frozenset()
        )
        self._inventory.resync()
        self._caplog = caplog

    def step(self, *events: Event) -> list[dict[str, Any]]:
        """Take in the events. Returns the facts of each line, with its level."""
        self._caplog.clear()
        for event in events:
            self._inventory.mark(event)
        self._inventory.step()
        return [
            {key: vars(each)[key] for key in KEYS if vars(each).get(key) not in (None, "")}
            | {"level": each.levelname.lower()}
            for each in self._caplog.records
        ]


@pytest.fixture
def stock(caplog: pytest.LogCaptureFixture) -> Stock:
    caplog.set_level(logging.DEBUG)
    return Stock(caplog)


def test_each_stage_of_a_container_names_it(stock: Stock) -> None:
    inspected, desired = stock.step()
    assert inspected == {"container_id": A, "level": "debug"}
    assert desired == {"container_id": A, "container": "a", "level": "debug"}
    assert stock.step() == []
    assert stock.step(stock.engine.die(A)) == [desired]


def test_a_container_that_cannot_be_inspected(stock: Stock) -> None:
    failed = {"event": "inspect_failed", "container_id": A, "level": "warning"}
    stock.engine.stuck.add(A)
    assert stock.step() == [failed | {"reason": "not_inspected"}]
    stock.engine.stuck.clear()
    stock.engine.hostile.add(A)
    stock.now += 60
    stock.step()
    stock.engine.hostile.clear()
    stock.now += 60
    stock.step()
    stock.engine.hostile.add(A)
    unreadable = failed | {"container": "a", "reason": "unreadable"}
    assert stock.step(Event(A, "rename", 1)) == [unreadable]


def test_a_restart_loop(stock: Stock) -> None:
    stock.step()
    starts = [stock.engine.start(container("a")) for _ in range(LOOP_STARTS)]
    loop, gone = stock.step(*starts)
    wanted = {"event": "restart_loop", "reason": "restart_loop", "container_id": A}
    assert loop == wanted | {"container": "a", "level": "warning"}
    assert gone == {"container": "a", "container_id": A, "level": "debug"}


def test_ports_that_are_left_out(stock: Stock) -> None:
    stock.step()
    hidden, wrong = container("b", host_port=0), container("c", env={"SERVICE_NAME": ".."})
    events = [stock.engine.start(each) for each in (hidden, wrong)]
    lines = [line for line in stock.step(*events) if "event" in line]
    assert lines == [
        {
            "event": "left_out", "container": "b", "container_id": hidden.id, "port": 80,
            "reason": "not_published", "level": "debug",
        },
        {
            "event": "rejected", "container": "c", "container_id": wrong.id, "port": 80,
            "reason": "rejected", "level": "warning",
        },
    ]  # fmt: skip
