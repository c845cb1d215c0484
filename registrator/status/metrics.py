"""The metrics: a table of all that exist, and their present values. It needs no library.

No label comes from a container. So the number of series does not depend on what a host runs, and
all of them are there from the start.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

from registrator.model import Reason
from registrator.status.board import Board
from registrator.status.instruments import ACTIONS, OTHER, Histogram
from registrator.status.outcomes import outcomes
from registrator.status.report import RegistryReport
from registrator.status.state import counted

PREFIX = "registrator_"
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"

# The values of labels.
RUNNING, LOOPING, NOT_INSPECTED = STATES = ("running", "looping", "uninspected")
FAILURES = ("unavailable", "session_lost")
WRITES, CAUSES = ("register", "remove"), ("change", "drift")

# Why nothing may be known of a container.
UNINSPECTED = {Reason.NOT_INSPECTED, Reason.UNREADABLE}


class Metric(NamedTuple):
    """A metric without its prefix. `labels` are those besides `registry`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    per_registry: bool = False

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The names of all labels."""
        return ("registry", *self.labels) if self.per_registry else self.labels


METRICS = (
    Metric("build_info", GAUGE, "1, with the version of the agent", ("version",)),
    Metric("engine_up", GAUGE, "1 if the Docker engine answered the last time"),
    Metric("engine_failures_total", COUNTER, "Attempts at which the engine did not answer"),
    Metric("engine_events_total", COUNTER, "Events that the engine told", ("action",)),
    Metric("engine_event_lag_seconds", GAUGE, "By this host's clock, how late the last event came"),
    Metric("engine_request_duration_seconds", HISTOGRAM, "Requests to the engine", ("request",)),
    Metric("containers", GAUGE, "Containers that run", ("state",)),
    Metric("ports", GAUGE, "Ports of containers, by what became of them", ("outcome",)),
    Metric("services", GAUGE, "Services that the containers offer"),
    Metric("dirty_containers", GAUGE, "Containers that changed and are still to be looked at"),
    Metric("snapshot_complete", GAUGE, "1 if every container was inspected at least once"),
    Metric("registry_up", GAUGE, "1 if the registry answered the last time", (), True),
    Metric("registry_in_sync", GAUGE, "1 if all that can be written is written", (), True),
    Metric("registry_divergence_seconds", GAUGE, "How long it has not been in step", (), True),
    Metric("registry_last_success_timestamp_seconds", GAUGE, "The last success", (), True),
    Metric("registry_last_listing_timestamp_seconds", GAUGE, "The last listing", (), True),
    Metric("registry_failures_total", COUNTER, "Failed attempts", ("reason",), True),
    Metric("registry_moves_total", COUNTER, "Moves to another address of the URI", (), True),
    Metric("registry_entries", GAUGE, "Services, by how they stand there", ("state",), True),
    Metric(
        "registry_writes_total",
        COUNTER,
        "Written entries: drift corrects what somebody else changed",
        ("operation", "cause"),
        True,
    ),
    Metric("registry_rejections_total", COUNTER, "Entries that the registry refused", (), True),
    Metric("registry_operation_duration_seconds", HISTOGRAM, "Calls to it", ("operation",), True),
    Metric("registry_operation_running_seconds", GAUGE, "How long the present call runs", (), True),
    Metric(
        "event_to_visible_seconds",
        HISTOGRAM,
        "From an event until the registry has what follows from it",
        (),
        True,
    ),
    Metric("http_refused_total", COUNTER, "Refused requests for this state"),
)

# The values of a metric by the values of its labels.
Values = Mapping[tuple[str, ...], float | Histogram]


def measured(board: Board, breathe: Callable[[], None] = lambda: None) -> dict[str, Values]:
    """The present values of all metrics by name. `breathe` lets the other threads run."""
    tally = counted(board, breathe)
    found: dict[str, dict[tuple[str, ...], float | Histogram]] = {}
    found["ports"] = {(name,): tally.ports[name] for name in outcomes()}
    found.update((name, dict(values)) for name, values in _of_agent(board).items())
    for index, report in enumerate(board.registries):
        counts = tally.counts(index)
        entries: Values = {
            ("registered",): counts["registered"],
            ("pending",): counts["pending"],
            ("rejected",): counts["refused"],
            ("conflict",): counts["conflicts"],
        }
        for name, values in {**_of_registry(report), "registry_entries": entries}.items():
            of_all = found.setdefault(name, {})
            of_all.update({(_fit(report.row.name), *key): each for key, each in values.items()})
    return dict(found)


def _of_agent(board: Board) -> dict[str, Values]:
    engine, latest = board.engine, board.latest
    row, counters = engine.row, engine.counters
    return {
        "build_info": {(board.agent.version,): 1},
        "engine_up": {(): bool(row.last_success and not row.failures)},
        "engine_failures_total": {(): counters.get(("failures", "unavailable"), 0)},
        "engine_events_total": {
            (action,): counters.get(("events", action), 0) for action in (*ACTIONS, OTHER)
        },
        "engine_event_lag_seconds": {(): board.event_lag},
        "engine_request_duration_seconds": {
            (name,): each for name, each in board.requests.histograms.items()
        },
        "containers": _containers(board),
        "services": {(): len(latest.services) if latest else 0},
        "dirty_containers": {(): board.waiting},
        "snapshot_complete": {(): bool(latest and latest.complete)},
        "http_refused_total": {(): board.refused},
    }


def _containers(board: Board) -> Values:
    found = Counter(
        _state({each.reason for each in offer.left_out if each.port is None})
        for offer in tuple(board.offers.values())
    )
    return {(state,): found[state] for state in STATES}


def _state(reasons: set[Reason]) -> str:
    if Reason.RESTART_LOOP in reasons:
        return LOOPING
    return RUNNING if reasons.isdisjoint(UNINSPECTED) else NOT_INSPECTED


def _of_registry(report: RegistryReport) -> dict[str, Values]:
    row, counters = report.row, report.counters
    return {
        "registry_up": {(): bool(row.last_success and not row.failures)},
        "registry_in_sync": {(): not report.divergence},
        "registry_divergence_seconds": {(): report.divergence},
        "registry_last_success_timestamp_seconds": {(): row.last_success},
        "registry_last_listing_timestamp_seconds": {(): row.last_listing},
        "registry_failures_total": {
            (reason,): counters.get(("failures", reason), 0) for reason in FAILURES
        },
        "registry_moves_total": {(): counters.get(("moves",), 0)},
        "registry_writes_total": {
            key: counters.get(("writes", *key), 0) for key in product(WRITES, CAUSES)
        },
        "registry_rejections_total": {(): counters.get(("rejections",), 0)},
        "registry_operation_duration_seconds": {
            (name,): each for name, each in report.operations.histograms.items()
        },
        "registry_operation_running_seconds": {(): report.operations.running},
        "event_to_visible_seconds": {(): report.event_to_visible},
    }


def _fit(text: str) -> str:
    """The text as UTF-8 can write it. Half of a surrogate pair would spoil the whole answer."""
    return text.encode("utf-8", "backslashreplace").decode()
