"""A report: the log lines about an outage and about services, and the row that goes with them."""

from __future__ import annotations

import logging

import pytest

from registrator.model import Entry, Problem, Reason, Service, Snapshot
from registrator.status.report import MAX_SINGLE_LINES, RegistryReport, Report, Written
from registrator.status.rows import Row


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def report(clock: Clock, caplog: pytest.LogCaptureFixture) -> Report[Row]:
    caplog.set_level(logging.INFO)
    return Report(Row("it"), logging.getLogger("test"), clock)


@pytest.fixture
def registry(clock: Clock, caplog: pytest.LogCaptureFixture) -> RegistryReport:
    caplog.set_level(logging.INFO)
    return RegistryReport("it", clock)


def service(name: str) -> Service:
    return Service(f"h:{name}:80", name, "127.0.0.7", 1000, 80, container_name=name)


def snapshot(*names: str) -> Snapshot:
    return Snapshot({made.id: made for made in map(service, names)})


def test_the_log_tells_the_begin_every_tenth_failure_and_the_end(
    report: Report[Row], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now = 1000
    for _ in range(25):
        report.failed("refused")
        clock.now += 1
    assert report.succeeded("2 registered")
    assert not report.succeeded("3 registered")
    assert caplog.messages == [
        "it: refused; retrying",
        "it: still failing after 9 s and 10 attempts: refused",
        "it: still failing after 19 s and 20 attempts: refused",
        "it: recovered after 25.0 s: 2 registered",
    ]


def test_each_outage_counts_for_itself(
    report: Report[Row], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    report.failed("refused")
    report.succeeded()
    clock.now += 100
    report.failed("refused")
    clock.now += 1
    report.succeeded()
    assert caplog.messages == [
        "it: refused; retrying",
        "it: recovered after 0.0 s",
        "it: refused; retrying",
        "it: recovered after 1.0 s",
    ]
    assert report.counters == {("failures", "unavailable"): 2}


def test_the_log_tells_a_loss_whatever_failed_before(
    report: Report[Row], caplog: pytest.LogCaptureFixture
) -> None:
    report.failed("refused")
    report.failed("moved", lost=True)
    report.failed("refused")
    assert caplog.messages == [
        "it: refused; retrying",
        "it: moved; registering again what is missing",
    ]
    assert report.counters[("failures", "session_lost")] == 1


def test_the_row_says_what_the_log_says(
    report: Report[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 100.0
    monkeypatch.setattr("registrator.status.report.time.time", lambda: moment)
    assert report.row == Row("it")
    report.succeeded()
    assert report.row == Row("it", since=100, last_success=100)
    moment = 200
    report.failed("refused")
    moment = 300
    report.failed(TimeoutError("slow"))
    assert report.row == Row("it", since=200, error="slow", failures=2, last_success=100)
    moment = 400
    report.succeeded()
    moment = 500
    report.succeeded()
    assert report.row == Row("it", since=400, last_success=500)


def test_a_row_is_never_half_changed(registry: RegistryReport) -> None:
    """A reader keeps the row that it holds, and each note makes one new row."""
    rows = []
    update = registry.update

    def spy(**changes: object) -> None:
        update(**changes)
        rows.append(registry.row)

    registry.update = spy  # type: ignore[method-assign]
    wanted = snapshot("a", "b")
    problems = {"h:b:80": Problem(Reason.REFUSED, "refused")}
    registry.failed("away")
    registry.realised(wanted, problems)
    failed, realised = rows
    assert (failed.failures, failed.error, failed.realised) == (1, "away", None)
    assert (realised.failures, realised.error) == (0, "")
    assert (realised.realised, realised.problems) == (wanted, problems)


def test_before_the_first_success_nothing_is_registered_and_no_moment_is_known(
    registry: RegistryReport,
) -> None:
    row = registry.row
    assert (row.registered, row.in_sync, row.failures, row.error) == (0, False, 0, "")
    assert (row.since, row.last_success, row.last_listing) == (0, 0, 0)


def test_in_sync_is_the_last_attempt_and_not_the_problems(registry: RegistryReport) -> None:
    def in_sync() -> bool:
        return registry.row.in_sync

    assert not in_sync()
    registry.realised(snapshot("a", "b"), {"h:b:80": Problem(Reason.REFUSED, "refused")})
    assert in_sync()
    assert registry.row.registered == 1
    registry.failed("away")
    assert not in_sync()
    registry.realised(Snapshot(settled=False), {})
    assert not in_sync()


def test_the_log_tells_a_problem_once_for_as_long_as_it_lasts(
    registry: RegistryReport, caplog: pytest.LogCaptureFixture
) -> None:
    def tell(text: str = "") -> list[str]:
        caplog.clear()
        problems = {"h:a:80": Problem(Reason.REFUSED, text)} if text else {}
        registry.realised(snapshot("a"), problems)
        return caplog.messages

    line = "it: h:a:80 (container a) is not registered: refused"
    assert tell("refused") == [line]
    assert tell("refused") == []
    assert tell("too long") == ["it: h:a:80 (container a) is not registered: too long"]
    assert tell() == []
    assert tell("refused") == [line]


def test_the_log_tells_each_change_or_sums_up_many(
    registry: RegistryReport, caplog: pytest.LogCaptureFixture
) -> None:
    def entries(number: int) -> list[Entry]:
        return [Entry(f"key{n}", "content", service(f"s{n}")) for n in range(number)]

    assert registry.wrote(entries(1), {"h:x:80": "h:x:80"}, drift=False, seconds=1) == Written(1, 1)
    assert caplog.messages == [
        "it: registered s0 as h:s0:80 at 127.0.0.7:1000 (container s0)",
        "it: removed h:x:80",
    ]
    caplog.clear()
    registry.wrote(entries(MAX_SINGLE_LINES), {}, drift=True, seconds=2)
    assert len(caplog.messages) == MAX_SINGLE_LINES
    caplog.clear()
    registry.wrote(entries(MAX_SINGLE_LINES), {"h:x:80": ""}, drift=True, seconds=3)
    assert caplog.messages == ["it: 20 registered, 1 removed in 3.00 s"]
    assert registry.counters == {
        ("writes", "register", "change"): 1,
        ("writes", "remove", "change"): 1,
        ("writes", "register", "drift"): 40,
        ("writes", "remove", "drift"): 1,
    }
