"""The time to live that a CoreDNS gives our records. ``make compatibility`` runs this file.

`make test` does not: a CoreDNS has to be built first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.coredns import CoreDNS
from support.dns import ask
from support.etcd import Backends, running
from support.wait import until

from registrator.model import Plan, Service

SERVICE = Service("host:web1:80", "web", "127.0.0.1", 8080, 80)
COREFILE = """\
cluster.local:1053 {
    cache 86400
    etcd {
        path /skydns
        endpoint http://127.0.0.1:2379
    }
}
"""


@pytest.fixture
def make() -> Iterator[Backends]:
    with closing(Backends()) as backends:
        yield backends


@pytest.mark.parametrize("ttl", [0, 60])
@pytest.mark.parametrize(("query", "most"), [("", 30), ("?dns-ttl=5", 5)])
def test_no_record_lives_longer_than_dns_ttl(
    tmp_path: Path, make: Backends, ttl: float, query: str, most: int
) -> None:
    """CoreDNS takes the smaller of the record's own time to live and that of its lease."""
    with running(tmp_path) as etcd:
        backend = make(f"skydns2://{etcd.address}/cluster.local{query}", ttl=ttl)
        assert backend.apply(Plan((backend.entry(SERVICE),))) == {}
        coredns = CoreDNS(tmp_path / "coredns", etcd, COREFILE)
        coredns.launch()
        try:
            found = until(
                lambda: ask(coredns.address, "web.cluster.local", "SRV"),
                coredns.tail,
                ignore=(OSError,),
            )
        finally:
            coredns.kill()
        assert [record.kind for record in found] == ["SRV", "A"]
        assert all(0 < record.ttl <= most for record in found)
