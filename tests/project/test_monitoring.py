"""The alert rules and the dashboard ask only for metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.servers import program

from registrator.listener.exposition import Exposition
from registrator.model import Reason
from registrator.status.board import Board
from registrator.status.metrics import METRICS, PREFIX
from registrator.status.outcomes import ATTENTION, name_of

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "monitoring/alerts.yml"
ALERTS_TEST = ROOT / "monitoring/alerts_test.yml"
DASHBOARD = ROOT / "monitoring/grafana.json"
PAGE = ROOT / "docs/seeing.md"

# These are the business of other alerts, or of those who watch the containers.
WATCHED_ELSEWHERE = {
    name_of(reason)
    for reason in (
        Reason.REGISTRY_AWAY, Reason.RESTART_LOOP, Reason.UNHEALTHY, Reason.STARTING,
    )
}  # fmt: skip

_SELECTOR = re.compile(r"\b((?:registrator|process)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_LABELS = re.compile(r"\b(?:by|without|on|ignoring) \(([^)]*)\)")


def known() -> dict[str, dict[str, set[str]]]:
    """The values of each label of each series that a scrape has, by the series' name."""
    text = Exposition(Board(["consul://h:8500"]), lambda: None).text().decode()
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def mistakes(query: str) -> Iterator[str]:
    """The names, labels and values in a query that no scrape has."""
    metrics = known()
    grouped = {label.strip() for labels in _LABELS.findall(query) for label in labels.split(",")}
    there = {"job", "instance"}
    for name, matchers in _SELECTOR.findall(query):
        labels = metrics.get(name)
        if labels is None:
            yield f"no metric {name}"
            continue
        there |= labels.keys()
        for label, operator, pattern in _MATCHER.findall(matchers):
            if label not in {*labels, "job", "instance"}:
                yield f"{name} has no label {label}"
            elif label in labels and "$" not in pattern:
                parts = pattern.split("|") if "~" in operator else [pattern]
                yield from (f"{label} is never {each}" for each in {*parts} - labels[label])
    yield from (f"no label {label}" for label in grouped - there)


def rules() -> dict[str, str]:
    """The expression of each alert."""
    found = {}
    for text in ALERTS.read_text().split("- alert: ")[1:]:
        name, _, rest = text.partition("\n")
        match = re.search(r"expr: (?:\|\n)?(.*?)\n +(?:for|labels):", rest, re.S)
        assert match, name
        found[name] = match[1]
    return found


def queries() -> list[str]:
    """Every query of the dashboard, also those of its variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    variables = dashboard["templating"]["list"]
    asked = [each["definition"] for each in variables if "definition" in each]
    return [*asked, *(t["expr"] for panel in dashboard["panels"] for t in panel["targets"])]


def test_the_rules_ask_for_what_exists() -> None:
    assert {name: [*mistakes(query)] for name, query in rules().items()} == {
        name: [] for name in rules()
    }
    assert len(rules()) == 9


def test_the_dashboard_asks_for_what_exists() -> None:
    assert {query: found for query in queries() if (found := [*mistakes(query)])} == {}
    assert all(_SELECTOR.search(query) for query in queries())


@pytest.mark.parametrize(
    "query",
    [
        "registrator_nothing", "sum by (container) (registrator_ports)",
        'registrator_ports{outcome="gone"}', 'registrator_ports{outcome=~"ignored|gone"}',
        'registrator_ports{registry="r"}', "registrator_event_to_visible_seconds",
    ],
)  # fmt: skip
def test_a_wrong_query_is_found(query: str) -> None:
    assert [*mistakes(query)]


def test_each_metric_of_a_registry_and_of_the_engine_is_seen_somewhere() -> None:
    asked = " ".join([*queries(), *rules().values()])
    unseen = {each.name for each in METRICS if PREFIX + each.name not in asked}
    assert unseen == {
        "snapshot_complete", "registry_last_success_timestamp_seconds", "registry_moves_total",
        "registry_last_listing_timestamp_seconds", "http_refused_total",
    }  # fmt: skip


def test_the_alert_counts_each_outcome_that_somebody_has_to_mend() -> None:
    match = re.search(r'outcome=~"([^"]*)"', rules()["RegistratorNotRegistered"])
    assert match
    assert set(match[1].split("|")) == ATTENTION - WATCHED_ELSEWHERE


def test_promtool_reads_the_rules_and_they_fire_and_end_in_their_windows() -> None:
    promtool = program("promtool", package="prometheus")
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", str(ALERTS_TEST)]):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = ALERTS_TEST.read_text()
    for name in rules():
        assert re.search(rf"alertname: {name}, exp_alerts: \[\]", tested), name
        assert re.search(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels", tested), name


def test_the_page_has_a_row_for_each_alert() -> None:
    table = PAGE.read_text().partition("<!-- alerts -->")[2].partition("<!-- /alerts -->")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.M) == [*rules()]
