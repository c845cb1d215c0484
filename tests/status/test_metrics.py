"""The metrics: all are there from the start, and none depends on what a host runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.require import require

from registrator.listener.exposition import Exposition
from registrator.model import Entry, LeftOut, Offer, Port, Problem, Reason, Service, Snapshot
from registrator.status.board import Board
from registrator.status.instruments import Histogram, Stopwatch
from registrator.status.metrics import METRICS, PREFIX, measured
from registrator.status.report import MAX_WAITING_EVENTS, RegistryReport

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(board: Board) -> Samples:
    """The values of a scrape by name and labels, without those of the process."""
    text = Exposition(board, lambda: None).text().decode()
    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    made = {(each.name, frozenset(each.labels.items())): each.value for each in found}
    assert len(made) == len(found)
    return {key: value for key, value in made.items() if key[0].startswith(PREFIX)}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[PREFIX + name, frozenset(labels.items())]


def service(name: str = "a") -> Service:
    return Service(f"h:{name}:80", name, "127.0.0.7", 1000, 80)


def test_all_series_are_there_from_the_start_and_their_number_is_fixed() -> None:
    board = Board(["consul://h:8500", "etcd://h:2379"])
    at_start = samples(board)
    assert {v for (name, _), v in at_start.items() if not re.search("build|divergence", name)} == {
        0
    }
    busy = Board(["consul://h:8500", "etcd://h:2379"])
    made = [service(f"evil{{}}{n}") for n in range(300)]
    offers = {
        each.id: Offer((each,), (LeftOut(Port(81, "tcp"), Reason.NOT_PUBLISHED),)) for each in made
    }
    snapshot = Snapshot({each.id: each for each in made})
    busy.tell_containers(snapshot, offers, waiting=3)
    for report in busy.registries:
        report.wants(snapshot)
        report.realised(snapshot, {made[0].id: Problem(Reason.REFUSED, "no")})
    assert samples(busy).keys() == at_start.keys()
    assert 60 <= len([1 for key in at_start if not dict(key[1]).get("registry")]) <= 85
    assert 60 <= len([1 for key in at_start if ("registry", "etcd://h:2379") in key[1]]) <= 90
    own = {name for name, _ in at_start}
    names = {re.sub("_(bucket|count|sum)$", "", name) for name in own}
    assert names == {PREFIX + each.name for each in METRICS}
    assert measured(board).keys() == {each.name for each in METRICS}


def test_the_values_are_those_of_the_board() -> None:
    board = Board(["consul://h:8500"])
    (report,) = board.registries
    board.tell_agent(version="1.2.3")
    board.engine.failed("gone")
    board.engine.succeeded()
    good, bad, new = service("good"), service("bad"), service("new")
    offers = {
        "1": Offer((good, bad), (LeftOut(Port(81, "tcp"), Reason.IGNORED),)),
        "2": Offer((), (LeftOut(None, Reason.RESTART_LOOP),)),
        "3": Offer((), (LeftOut(None, Reason.NOT_INSPECTED),)),
        "4": Offer((new,)),
    }
    first = Snapshot({each.id: each for each in (good, bad)})
    report.serves("one")
    report.serves("two")
    report.wants(first)
    report.listed()
    report.count("rejections")
    report.wrote([Entry("k", "c", good)], {}, drift=False, seconds=0.1)
    report.wrote([], {"k": ""}, drift=True, seconds=0.1)
    report.realised(first, {bad.id: Problem(Reason.OTHERS_ENTRY, "no")})
    latest = Snapshot({each.id: each for each in (good, bad, new)}, complete=False)
    board.tell_containers(latest, offers, waiting=2)
    report.wants(latest)
    board.refused = 4
    found = samples(board)
    assert value(found, "build_info", version="1.2.3") == 1
    assert value(found, "engine_up") == 1
    assert value(found, "engine_failures_total") == 1
    assert value(found, "containers", state="running") == 2
    assert value(found, "containers", state="looping") == 1
    assert value(found, "containers", state="uninspected") == 1
    assert value(found, "ports", outcome="ignored") == 1
    assert value(found, "ports", outcome="others_entry") == 1
    assert value(found, "ports", outcome="pending") == 1
    assert value(found, "services") == 3
    assert value(found, "dirty_containers") == 2
    assert value(found, "snapshot_complete") == 0
    assert value(found, "http_refused_total") == 4
    registry = {"registry": "consul://h:8500"}
    assert value(found, "registry_up", **registry) == 1
    assert value(found, "registry_in_sync", **registry) == 0
    assert value(found, "registry_divergence_seconds", **registry) > 0
    for state, number in {"registered": 1, "conflict": 1, "pending": 1, "rejected": 0}.items():
        assert value(found, "registry_entries", state=state, **registry) == number
    written = {
        (operation, cause): value(
            found, "registry_writes_total", operation=operation, cause=cause, **registry
        )
        for operation in ("register", "remove")
        for cause in ("change", "drift")
    }
    assert [key for key, number in written.items() if number] == [
        ("register", "change"), ("remove", "drift"),
    ]  # fmt: skip
    assert value(found, "registry_moves_total", **registry) == 1
    assert value(found, "registry_rejections_total", **registry) == 1
    assert value(found, "registry_last_listing_timestamp_seconds", **registry) > 1e9
    assert value(found, "registry_last_success_timestamp_seconds", **registry) > 1e9


@pytest.mark.parametrize("uri", ["consul://h:8500/\udc00", 'file:///a"b\\c', "file:///ü"])
def test_no_uri_spoils_the_answer(uri: str) -> None:
    found = samples(Board([uri]))
    (name,) = {dict(labels)["registry"] for _, labels in found if dict(labels).get("registry")}
    assert name == uri.encode("utf-8", "backslashreplace").decode()


def test_promtool_has_nothing_against_it() -> None:
    promtool = shutil.which("promtool")
    require("promtool", promtool, "it is in the package prometheus")
    assert promtool
    text = Exposition(Board(["consul://h:8500"]), lambda: None).text()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(seconds)
    assert histogram.read() == ([2, 3, 4], 12.0)


def test_a_stopwatch_measures_what_fails_and_tells_what_runs() -> None:
    now = count(10.0)
    watch = Stopwatch(("a",), (1.5,), lambda: next(now))
    assert watch.running == 0
    with pytest.raises(OSError), watch.measure("a"):  # noqa: PT012
        assert watch.running == 1
        raise OSError
    assert watch.running == 0
    assert watch.histograms["a"].read() == ([0, 1], 2.0)


class Registry:
    """A report with a clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.report = RegistryReport("it", lambda: self.now)

    def visible(self) -> list[float]:
        """How many events are visible, and how long they took together."""
        counts, total = self.report.event_to_visible.read()
        return [counts[-1], total]


def test_an_event_is_measured_once_it_is_visible() -> None:
    it = Registry()
    snapshot = it.report.wants(Snapshot(received=(98.0, 99.0)))
    assert it.visible() == [0, 0]
    for _ in range(2):
        it.report.realised(snapshot, {})
        assert it.visible() == [2, 3.0]
    it.now = 110.0
    later = it.report.wants(Snapshot({"a": service()}, received=(109.0,)))
    it.report.realised(later, {})
    assert it.visible() == [3, 4.0]


def test_an_event_waits_through_portions_and_outages() -> None:
    it = Registry()
    portion = it.report.wants(Snapshot(received=(90.0,), settled=False))
    it.report.realised(portion, {})
    assert it.visible() == [0, 0]
    it.report.wants(Snapshot({"a": service()}, received=(95.0,)))
    it.report.failed("away")
    last = it.report.wants(Snapshot({"b": service("b")}, received=(99.0,)))
    it.report.realised(last, {})
    assert it.visible() == [3, 10.0 + 5.0 + 1.0]


def test_a_long_outage_forgets_the_oldest_events() -> None:
    it = Registry()
    last = Snapshot()
    for number in range(MAX_WAITING_EVENTS + 50):
        last = it.report.wants(Snapshot({"a": service(str(number))}, received=(float(number),)))
    assert len(last.received) == MAX_WAITING_EVENTS


def test_the_divergence_lasts_from_the_first_change_that_is_not_written() -> None:
    it = Registry()
    it.now = 103.0
    assert it.report.divergence == 3
    first = it.report.wants(Snapshot())
    it.now = 104.0
    assert it.report.divergence == 4
    it.report.realised(first, {})
    assert it.report.divergence == 0
    it.now = 110.0
    it.report.wants(Snapshot({"a": service("a")}))
    it.now = 111.0
    second = it.report.wants(Snapshot({"b": service("b")}))
    it.now = 112.0
    assert it.report.divergence == 2
    it.report.realised(first, {})
    assert it.report.divergence == 2
    it.report.realised(second, {})
    assert it.report.divergence == 0
    it.report.failed("away")
    it.now = 115.0
    assert it.report.divergence == 3
    it.report.realised(second, {})
    assert it.report.divergence == 0


def test_a_busy_host_diverges_for_as_long_as_its_oldest_change_waits() -> None:
    """While a change is written the next one comes, so the registry is never in step."""
    it = Registry()
    writing = it.report.wants(Snapshot())
    for second in range(101, 110):
        it.now = float(second)
        news = Snapshot({"a": service(str(second))}, received=(it.now,))
        waiting = it.report.wants(news)
        it.now += 0.5
        it.report.realised(writing, {})
        assert it.report.divergence == 0.5
        writing = waiting
    it.now += 5
    assert it.report.divergence == 5.5
    it.report.realised(writing, {})
    assert it.report.divergence == 0
