"""The facts that log lines about the engine, a registry and its services give to programs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from registrator.model import Entry, Problem, Reason, Service, Snapshot
from registrator.status import report as module
from registrator.status.facts import of_reason
from registrator.status.report import MAX_SINGLE_LINES, RegistryReport, Report
from registrator.status.rows import Row
from registrator.system.log import KEYS

SERVICE = Service(
    "h:a:80", "web", "127.0.0.7", 1000, 80, container_id="a" * 64, container_name="a"
)  # fmt: skip
OF_SERVICE = {
    "service": "web", "service_id": "h:a:80", "container": "a", "container_id": "a" * 64,
    "address": "127.0.0.7", "port": 1000,
}  # fmt: skip
IT = {"registry": "it", "server": "one"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> RegistryReport:
    made = RegistryReport("it", clock)
    made.serves("one")
    return made


@pytest.fixture
def facts(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The facts of each line since the last call, without those that are not known."""
    caplog.set_level(logging.DEBUG)

    def found() -> list[dict[str, Any]]:
        given = [vars(record) for record in caplog.records]
        caplog.clear()
        return [
            {key: each[key] for key in KEYS if each.get(key) not in (None, "")} for each in given
        ]

    return found


Facts = Callable[[], list[dict[str, Any]]]


def test_an_outage_of_the_engine(clock: Clock, facts: Facts) -> None:
    report = Report(Row("it"), logging.getLogger("test"), clock)
    for _ in range(10):
        report.failed("refused")
        clock.now += 1
    report.succeeded()
    assert facts() == [
        {"event": "engine_away", "attempt": 1},
        {"attempt": 10, "duration_seconds": 9},
        {"event": "engine_back", "attempt": 10, "duration_seconds": 10},
    ]


def test_an_outage_of_a_registry(registry: RegistryReport, clock: Clock, facts: Facts) -> None:
    registry.failed("refused")
    clock.now += 1
    registry.failed("the lease ended", lost=True)
    registry.succeeded()
    assert facts() == [
        {"event": "outage_began", **IT, "attempt": 1},
        {**IT, "attempt": 2, "duration_seconds": 1},
        {"event": "outage_over", **IT, "attempt": 2, "duration_seconds": 1},
    ]


def test_a_loss_begins_an_outage_unless_the_server_moved(
    registry: RegistryReport, facts: Facts
) -> None:
    registry.failed("the lease ended", lost=True)
    registry.succeeded()
    registry.serves("two")
    registry.failed("moved to two", lost=True, moved=True)
    registry.succeeded()
    events = [each["event"] for each in facts()]
    assert events == ["outage_began", "outage_over", "server_moved", "outage_over"]


def test_a_write(registry: RegistryReport, clock: Clock, facts: Facts) -> None:
    entry, unknown = Entry("k", "c", SERVICE), {"x": "an id", "y": ""}
    registry.plans([entry], {"k": SERVICE, **unknown})
    assert facts() == [
        IT | OF_SERVICE, IT | OF_SERVICE, IT | {"service_id": "an id"}, IT,
    ]  # fmt: skip
    registry.wants(Snapshot({SERVICE.id: SERVICE}, received=(97.0, 99.0)))
    wrote = IT | {"duration_seconds": 0.5, "latency_seconds": 3}
    registry.wrote([entry], {"k": SERVICE, **unknown}, drift=False, seconds=0.5)
    assert facts() == [
        wrote | OF_SERVICE | {"event": "registered"},
        wrote | OF_SERVICE | {"event": "removed"},
        wrote | {"event": "removed", "service_id": "an id"},
        wrote | {"event": "removed"},
    ]


def test_only_a_write_that_an_event_caused_has_a_latency(
    registry: RegistryReport, clock: Clock, facts: Facts
) -> None:
    entry = Entry("k", "c", SERVICE)
    seen = registry.wants(Snapshot({SERVICE.id: SERVICE}, received=(99.0,)))
    registry.wrote([entry], {}, drift=True, seconds=0)
    registry.realised(seen, {})
    registry.wrote([entry], {}, drift=False, seconds=0)
    assert [each.get("latency_seconds") for each in facts()] == [None, None]


def test_many_writes_cost_nothing_unless_each_is_logged(
    registry: RegistryReport,
    facts: Facts,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a start there may be thousands."""
    entries = [Entry(f"k{n}", "c", SERVICE) for n in range(MAX_SINGLE_LINES + 1)]
    registry.wants(Snapshot({SERVICE.id: SERVICE}))
    registry.wrote(entries, {}, drift=False, seconds=2)
    assert len(facts()) == MAX_SINGLE_LINES + 2
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "of_service", None)  # A call of it fails.
    registry.plans(entries, {"k": SERVICE})
    registry.wrote(entries, {}, drift=False, seconds=2)
    registry.realised(Snapshot(excluded={SERVICE.id: SERVICE}), {})
    assert facts() == [IT | {"duration_seconds": 2}]


def test_a_service_that_is_not_registered(registry: RegistryReport, facts: Facts) -> None:
    shown = Snapshot({SERVICE.id: SERVICE})
    for reason, event in (
        (Reason.OTHERS_ENTRY, "conflict"),
        (Reason.SAME_KEY, "conflict"),
        (Reason.REFUSED, "rejected"),
        (Reason.UNHEALTHY, "left_out"),
    ):
        registry.realised(shown, {SERVICE.id: Problem(reason, "why")})
        wanted = {"event": event, "reason": reason.name.lower()}
        assert facts() == [IT | OF_SERVICE | wanted]
    registry.realised(Snapshot(excluded={SERVICE.id: SERVICE}), {})
    assert facts() == [IT | OF_SERVICE | {"event": "left_out", "reason": "filtered"}]


def test_a_service_without_a_port_has_no_key_for_it(registry: RegistryReport, facts: Facts) -> None:
    portless = Service("h:a:0", "web", "127.0.0.7", 0, 0)
    registry.wrote([Entry("k", "c", portless)], {}, drift=False, seconds=0)
    assert "port" not in facts()[0]


def test_every_reason_has_an_event() -> None:
    events = {of_reason(reason)["event"] for reason in Reason}
    assert events == {"rejected", "conflict", "claimed", "left_out"}
