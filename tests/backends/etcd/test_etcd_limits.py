"""A write that etcd refuses for want of room, or as too large, holds up nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from support.etcd import Backends, ctl, keys, revision, running
from support.servers import Etcd
from support.wait import until

from registrator.backend import Unavailable
from registrator.model import Plan, Service

SERVICE = Service("host:web1:80", "web", "10.0.0.1", 8080, 80)


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


def services(count: int, **changes: object) -> list[Service]:
    made = (replace(SERVICE, id=f"host:web{n}:80", port=8000 + n) for n in range(count))
    return [replace(each, **changes) for each in made]  # type: ignore[arg-type]


def fill(etcd: Etcd) -> None:
    """Write until etcd has no room."""

    def full() -> bool:
        try:
            ctl(etcd, "put", f"/filler/{uuid4()}", stdin="x" * 1_000_000)
        except AssertionError as error:
            return "database space exceeded" in str(error)
        return False

    until(full, "a full database")


def test_without_room_deletes_go_on(tmp_path: Path, make: Backends) -> None:
    with running(tmp_path, f"--quota-backend-bytes={16 * 1024 * 1024}") as etcd:
        backend = make(f"etcd://{etcd.address}/s")
        old = [backend.entry(each) for each in services(4)]
        backend.apply(Plan(tuple(old)))
        fill(etcd)
        new = backend.entry(replace(SERVICE, id="host:new:80"))
        renamed = backend.entry(replace(old[1].service, name="renamed"))
        removed = (old[0].key, old[1].key)
        with pytest.raises(Unavailable, match=r"space exceeded.*defragment"):
            backend.apply(Plan((new, renamed), removed))
        # The renamed service keeps its old key for as long as it has no new one.
        assert set(keys(etcd, "/s")) == {entry.key for entry in old[1:]}
        assert backend.apply(Plan((), (old[2].key,))) == {}
        assert set(keys(etcd, "/s")) == {old[1].key, old[3].key}
        ctl(etcd, "del", "--prefix", "/filler/")
        make_room(etcd)
        backend.list()
        assert backend.apply(Plan((new, renamed), removed)) == {}
        assert set(keys(etcd, "/s")) == {new.key, renamed.key, old[3].key}


def make_room(etcd: Etcd) -> None:
    ctl(etcd, "compact", str(revision(etcd)))
    ctl(etcd, "defrag")
    ctl(etcd, "alarm", "disarm")


@pytest.mark.parametrize("most", [1, 7, 64])
def test_a_server_that_takes_fewer_operations(tmp_path: Path, make: Backends, most: int) -> None:
    with running(tmp_path, f"--max-txn-ops={most}") as etcd:
        backend = make(f"etcd://{etcd.address}/s")
        entries = tuple(map(backend.entry, services(150)))
        for _ in range(2):
            assert backend.apply(Plan(entries)) == {}
            assert len(keys(etcd, "/s")) == 150
        again = make(f"etcd://{etcd.address}/s")
        assert again.apply(Plan((), tuple(entry.key for entry in entries))) == {}
        assert keys(etcd, "/s") == {}


@pytest.mark.parametrize("most", [2_000, 40_000])
def test_a_server_that_takes_less_data(tmp_path: Path, make: Backends, most: int) -> None:
    """The one that is too large is refused. The others are written."""
    with running(tmp_path, f"--max-request-bytes={most}") as etcd:
        backend = make(f"etcd://{etcd.address}/s?value=json")
        small = tuple(map(backend.entry, services(100)))
        attrs = {"x": "y" * most}
        large = backend.entry(replace(SERVICE, id="host:large:80", attrs=attrs))
        huge = backend.entry(replace(SERVICE, id="huge", attrs={"x": "y" * 250_000}))
        rejected = backend.apply(Plan((*small[:50], large, huge, *small[50:])))
        assert rejected.keys() == {large.key, huge.key}
        assert all("large" in why for why in rejected.values())
        assert len(keys(etcd, "/s")) == 100
