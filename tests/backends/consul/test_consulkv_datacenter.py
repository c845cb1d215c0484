"""Keys in another datacenter, by ``?dc=``: two real servers that know each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.consul import Running, backend, put, register, service
from support.proxy import RecordingHTTPProxy
from support.servers import Consul, free_ports, start_all
from support.wait import until

from registrator.backend import Unavailable
from registrator.model import Plan


def server(folder: Path, dc: str, *join: str) -> Consul:
    """A server of one datacenter, which joins other ones."""
    config: dict[str, Any] = {"datacenter": dc, "ports": {}}
    made = Consul(folder / dc, name=dc, config=config)
    made.config["ports"]["serf_wan"] = free_ports(made.ip, 1)[0]
    if join:
        made.config["retry_join_wan"], made.config["retry_interval_wan"] = list(join), "1s"
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Consul, Consul]]:
    folder = tmp_path_factory.mktemp("datacenters")
    there = server(folder, "dc2")
    here = server(folder, "dc1", f"{there.ip}:{there.config['ports']['serf_wan']}")
    start_all([here, there])
    until(lambda: here.api("status/leader?dc=dc2"), "the way to dc2", ignore=(OSError,))
    yield here, there
    for each in (here, there):
        each.kill()


@pytest.fixture
def watched(both: tuple[Consul, Consul]) -> Iterator[RecordingHTTPProxy]:
    made = RecordingHTTPProxy(both[0].address)
    yield made
    made.close()


def keys(consul: Consul) -> set[str]:
    try:
        return {row["Key"] for row in consul.api("kv/services/?recurse")}
    except OSError:
        return set()


@pytest.mark.parametrize("ttl", [{}, {"ttl": 30, "ttl_refresh": 10}])
def test_all_is_written_and_read_in_the_other_datacenter(
    both: tuple[Consul, Consul], watched: RecordingHTTPProxy, ttl: dict[str, Any]
) -> None:
    here, there = both
    ours = backend(f"consulkv://{watched.address}/services?dc=dc2", **ttl)
    assert ours.list() == {}
    first, second = register(ours, service(1), service(2))
    assert keys(here) == set()
    assert keys(there) == {first.key, second.key}
    sessions = there.api("session/list")
    assert [each["Node"] for each in sessions] == [there.config["node_name"]] * bool(ttl)
    # A resync without a change writes nothing.
    stands = there.api("kv/services/?recurse")
    watched.requests.clear()
    ours.keepalive()
    assert {key: found.content for key, found in ours.list().items()} == {
        each.key: each.content for each in (first, second)
    }
    assert all(found.held for found in ours.list().values())
    assert there.api("kv/services/?recurse") == stands
    assert all("dc=dc2" in each.path for each in watched.requests)
    ours.close()
    # The next process takes over, and removes what ended meanwhile.
    again = backend(f"consulkv://{watched.address}/services?dc=dc2", **ttl)
    assert again.list().keys() == {first.key, second.key}
    again.apply(Plan((first,), (second.key,)))
    assert keys(there) == {first.key}
    again.apply(Plan((), (first.key,)))
    again.close()
    for each in there.api("session/list"):
        put(there, f"session/destroy/{each['ID']}")


def test_a_session_that_ended_with_its_server_is_opened_again(both: tuple[Consul, Consul]) -> None:
    here, there = both
    uri, context = f"consulkv://{here.address}/services?dc=dc2", {"ttl": 10, "ttl_refresh": 1}
    running = Running(uri, service(1), **context)
    try:
        until(lambda: keys(there), "the key")
        (session,) = there.api("session/list")
        put(there, f"session/destroy/{session['ID']}")
        until(lambda: keys(there) and there.api("session/list") != [session], "another session")
    finally:
        running.stop()


def test_an_unknown_datacenter_is_named(both: tuple[Consul, Consul]) -> None:
    ours = backend(f"consulkv://{both[0].address}/services?dc=dc3")
    with pytest.raises(Unavailable, match="No path to datacenter") as raised:
        ours.list()
    assert "HTTP port" not in str(raised.value)
    ours.close()
