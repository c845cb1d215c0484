"""The benchmarks: what they calculate, and small runs on real servers.

Nothing here looks at a duration. A small run shows that the rows still measure something.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Request
from support.servers import program

from benchmarks import fleet, herd, paper, peers, scale
from benchmarks.__main__ import PEER_ROWS, ROWS
from benchmarks.agents import Host, Peer
from benchmarks.figure import DOCUMENT, Figure, median, table
from benchmarks.foreign import SEEDERS, SERVICES, entries, parts
from benchmarks.meters import Usage
from benchmarks.registries import running
from benchmarks.registry import Registry
from benchmarks.resources import reads_only
from registrator.backend import Context, load
from registrator.model import Identity, Mark
from registrator.uri import parse

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {"etcd": "etcd", "skydns2": "etcd", "zookeeper": "java"}


def test_a_figure_is_the_median_of_its_samples() -> None:
    figure = Figure.of("row", [3.0, 1.0, 20.0], "ms", base=2.0, times=1.5)
    assert (figure.value, figure.n, figure.extremes) == (3.0, 3, (1.0, 20.0))
    assert (figure.bound, figure.met, figure.ratio) == (3.0, True, 1.5)


@pytest.mark.parametrize(("value", "met"), [(0.9, True), (1.0, True), (1.1, False)])
def test_a_target_is_an_upper_bound(value: float, met: bool) -> None:
    assert Figure("row", value, "s", target=1.0).met is met


def test_no_samples_meet_no_target() -> None:
    assert Figure.of("row", [], "s", target=1e9).met is False
    assert median([]) == float("inf")


def test_a_table_has_even_columns_and_no_empty_one() -> None:
    text = table([Figure("a", 1.0, "s"), Figure("longer", 12345.0, "s", base=2.0)], "alone")
    lines = text.splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert "alone" in lines[0]
    assert "target" not in lines[0]
    assert "12,345 s" in lines[3]


def test_a_table_beside_another_registrator() -> None:
    text = table([Figure("a", 3.0, "s", base=2.0, peer=6.0, n=5, note="why")], only=DOCUMENT)
    heads, _, cells = ([each.strip() for each in row.split("|")[1:-1]] for row in text.splitlines())
    assert heads == ["figure", "median", "floor", "ratio", "other", "to other"]
    assert cells == ["a", "3 s", "2 s", "1.50", "6 s", "0.50"]
    assert "| never |" in table([Figure("a", 3.0, "s", peer=float("inf"))], only=DOCUMENT)


def test_a_figure_as_json() -> None:
    shown = json.loads(json.dumps(Figure("a", 3.0, "s", base=2.0, times=2.0).as_json()))
    assert (shown["bound"], shown["ratio"], shown["met"]) == (4.0, 1.5, True)


def test_use_without_what_is_used_anyway() -> None:
    idle = Usage(seconds=10, agent=1, server=2, requests=10, received=100)
    used = Usage(seconds=5, agent=3, server=0.5, requests=6, received=60)
    assert used.without(idle) == Usage(seconds=5, agent=2.5, server=0, requests=1, received=10)
    assert (used / 5).requests == 1.2


COSTS = paper.Costs(listing=2, young=8, alive=0.1, start=6, loss=10)


def test_a_fleet_on_paper() -> None:
    assert paper.steady(COSTS, 600, resync=60) == pytest.approx(600 * 2 / 60 + 60)
    assert paper.young(COSTS, 600) == pytest.approx(600 * 8 / 60 + 60)
    assert paper.restart(COSTS, 600, over=600) == pytest.approx(140 + 6)
    assert [paper.wait(60), paper.wait(3600)] == [10, 30]
    assert paper.attempts(900, outage=180) == pytest.approx(40)
    assert paper.returning(COSTS, 900, outage=180) == pytest.approx(paper.steady(COSTS, 900) + 400)


def test_the_document_has_the_table_on_paper() -> None:
    assert paper.table() in (ROOT / "docs/performance.md").read_text()


def test_simulated_agents_send_what_paper_says() -> None:
    hosts = 50
    found = herd.Herd(hosts)
    found.run(600)
    rate = found.registry.rate(300, 600)
    assert rate == pytest.approx(paper.steady(herd.COSTS, hosts), rel=0.1)
    assert found.right() == hosts


def test_parts_are_whole() -> None:
    assert [*parts(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [*parts([], 2)] == []


def test_hosts_differ() -> None:
    hosts = [Host(number) for number in (0, 1, 256, 20_000)]
    assert len({host.ip for host in hosts}) == len({host.engine for host in hosts}) == 4


def test_the_words_of_a_peer(tmp_path: Path) -> None:
    peer = Peer(tmp_path, "/opt/other 'a b'", ("-ip", "192.0.2.1", "consul://x"), "unix:///sock")
    assert peer.command() == ["/opt/other", "a b", "-ip", "192.0.2.1", "consul://x"]
    assert peer.environment()["DOCKER_HOST"] == "unix:///sock"


def test_every_group_of_rows_is_known() -> None:
    assert {f"foreign-{scheme}" for scheme in SEEDERS} <= ROWS.keys()
    assert {f"fleet-{scheme}" for scheme in paper.COSTS} <= ROWS.keys()
    assert PEER_ROWS.keys() - {"cold"} <= ROWS.keys()


@pytest.mark.parametrize(
    ("path", "verbs", "reads"),
    [
        ("/v1/txn", ["check-index", "get", "check-not-exists"], True),
        ("/v1/txn", ["check-index", "set"], False),
        ("/v1/kv/bench", [], False),
    ],
)
def test_a_transaction_that_only_checks_is_no_write(
    path: str, verbs: list[str], reads: bool
) -> None:
    body = json.dumps([{"KV": {"Verb": verb, "Key": "bench/web"}} for verb in verbs]).encode()
    assert reads_only(Request("PUT", path, body)) is reads


@pytest.fixture(params=SEEDERS)
def registry(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A running server of each kind that can hold foreign entries."""
    if needed := NEEDS.get(request.param):
        program(needed)
    with running(request.param) as found:
        yield found


def test_foreign_entries_are_those_of_other_owners(registry: Registry) -> None:
    others, own = [Host(1), Host(2)], Host(3)
    with SEEDERS[registry.scheme](registry) as seed:
        seed(others)
        keys = [entry.key for host in others for entry in entries(registry, host)]
        uri = parse(registry.uri)
        context = Context(uri, Identity(own.engine, own.name), timeout=60)
        with closing(load(uri.scheme)(context)) as backend:
            found = backend.list(keys)
        assert len(keys) == len({*keys}) == 2 * SERVICES
        assert {key: found[key].mark for key in keys} == dict.fromkeys(keys, Mark.OTHERS)
        assert [registry.count(host) for host in (*others, own)] == [1, 1, 0]
        registry.clear(others[0])
        assert [registry.count(host) for host in others] == [0, 1]


def test_a_small_run_beside_foreign_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    program("etcd")
    monkeypatch.setattr(scale, "IDLE", 0.1)
    monkeypatch.setattr(scale, "EACH", 1)
    figures = {figure.row: figure for figure in scale.rows("etcd", (0, 200), 1)}
    assert len(figures) == 12
    assert all(figure.base is not None for row, figure in figures.items() if " 200 " in row)
    assert figures["etcd, 200 foreign: received a resync"].value > 0


def test_a_small_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    program("etcd")
    monkeypatch.setattr(fleet, "ALONE", 0.1)
    figures = {figure.row: figure for figure in fleet.rows("etcd", 2, 0.1)}
    assert figures["etcd, 2 agents, all restarted: requests"].value >= 2
    assert figures["etcd, 2 agents, after a wipe: requests"].value >= 2 * 2


def test_a_small_run_beside_another_registrator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is the agent itself."""
    program("java")
    monkeypatch.setattr(peers, "RESYNC", 1)
    monkeypatch.setattr(peers, "QUIET", 0.1)
    peer = f"{sys.executable} -m registrator"
    figures = [*peers.idle("zookeeper", 3, 1, peer), *peers.storm("zookeeper", 3, 1, peer)]
    assert [figure.row.partition(":")[0] for figure in figures] == [
        "processor time an hour, 3 containers idle",
        "a resync, processor time, 3 containers idle",
        "a resync, the registry's processor time, 3 containers idle",
        "a resync, requests, 3 containers idle",
        "a resync, received, 3 containers idle",
        "3 starts within 50 ms, missing",
        "3 starts within 50 ms, all visible",
    ]
    assert all(figure.peer is not None for figure in figures)
    assert (figures[5].value, figures[5].peer) == (0, 0)


def test_an_idle_hour_has_its_resyncs() -> None:
    found = peers.Idle(second=Usage(seconds=1, agent=0.001), resync=Usage(agent=0.1))
    assert found.hour == pytest.approx(3.6 + 6)
