"""A registry on a bad day: what the operator and the other registries see of it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faults.worlds import READ_ERRORS, WORLDS, World
from support.agent import Agent
from support.engine import Dockerd
from support.namespace import Namespace
from support.proxy import TCPProxy
from support.servers import Consul, ZooKeeper, zookeeper_cluster
from support.wait import until
from support.zookeeper import client, holders

RunAgent = Callable[..., Agent]
WORDS = ("-ip", "127.10.0.1", "-hostname", "h", "-resync", "0")


@pytest.fixture
def own_consul(tmp_path: Path) -> Iterator[Consul]:
    """A Consul that may be stopped."""
    server = Consul(tmp_path / "consul")
    server.start()
    yield server
    server.remove()


def test_what_the_operator_reads_of_an_outage(
    clean_engine: Dockerd, own_consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    """Its first failure, every tenth, and its end, with how long it took and what was put right."""
    uri = f"consul://{own_consul.address}"
    run = agent(*WORDS, uri, f"file://{tmp_path / 'known'}")
    clean_engine.api.run("before", publish_all=True)
    run.wait_log(f"{uri}: registered web as h:before:80")
    read = len(run.log)
    own_consul.kill()
    clean_engine.api.run("meanwhile", publish_all=True)
    run.wait_log("and 10 attempts")
    # The agent has to know it before the outage ends.
    run.wait_log("file://.*: registered web as h:meanwhile:80")
    own_consul.start()
    run.wait_log("recovered after")
    told = [line.split(f" {uri}: ")[1] for line in run.log[read:].splitlines() if uri in line]
    begin, *tenths, end = [
        line for line in told if re.search("retrying|recovered|still failing", line)
    ]
    assert begin.endswith("; retrying")
    counted = [re.findall(r"still failing after \d+ s and (\d+) attempts", line) for line in tenths]
    assert counted == [[str(10 * number)] for number in range(1, len(tenths) + 1)]
    assert re.fullmatch(r"recovered after \d+\.\d s: 1 registered, 0 removed", end)
    # Beside that: what was registered, and that Consul was back before it had a leader.
    assert len(told) <= 2 + len(tenths) + 2


def test_registries_that_are_dead_or_mute_cost_the_others_nothing(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    file = tmp_path / "services.json"

    def registered() -> bool:
        ids = {group["labels"]["id"] for group in json.loads(file.read_text())}
        return wanted <= ids and wanted <= consul.api("agent/services").keys()

    with ExitStack() as ends:
        mute = ends.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))
        where = f"127.0.0.1:{mute.getsockname()[1]}"
        paths = {"skydns2": "/cluster.local"}
        ailing = [
            f"{scheme}://{at}{paths.get(scheme, '')}?timeout=60"
            for scheme in ("consul", "consulkv", "etcd", "skydns2", "zookeeper")
            for at in ("127.99.9.9:1", where)
        ]
        run = agent(*WORDS, *ailing, f"consul://{consul.address}", f"file://{file}")
        for number in range(5):
            clean_engine.api.run(f"web{number}", publish_all=True)
            wanted = {f"h:web{number}:80"}
            until(registered, run.tail, ignore=READ_ERRORS)
        assert where not in run.log.partition("registered ")[2], "the mute ones still wait"
        clean_engine.api.clear()
        until(lambda: consul.api("agent/services") == {}, "the shared Consul as it was")


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = WORLDS[request.param](tmp_path / "cluster")
    yield made
    made.remove()


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.remove()


def test_a_member_whose_packets_are_dropped(
    world: World, host: Namespace, clean_engine: Dockerd, tmp_path: Path
) -> None:
    """There is no FIN and no RST, and a connection is in use. Each member has its turn."""
    members = world.members[:2] if world.name in ("consul", "consulkv") else world.members
    ips = [host.another(10 + number) for number in range(len(members))]
    proxies = [TCPProxy(m.address, ip) for m, ip in zip(members, ips, strict=True)]  # type: ignore[attr-defined]
    path = "" if world.name == "consul" else "/services"
    uri = f"{world.name}://{','.join(proxy.address for proxy in proxies)}{path}"
    agent = Agent(tmp_path, [*WORDS, uri], clean_engine.host, prefix=host.command)
    wanted: list[str] = []

    def add(name: str) -> None:
        clean_engine.api.run(name, publish_all=True)
        wanted.append(f"h:{name}:80")

    def ids() -> list[str]:
        return [record[0] for record in world.entries()]

    def shown() -> str:
        return f"{wanted}, not {ids()}; {agent.tail()}"

    try:
        agent.start()
        add("web0")
        until(lambda: ids() == wanted, shown, ignore=READ_ERRORS)
        for number, ip in enumerate(ips, 1):
            host.drop(ip)
            add(f"web{number}")
            until(lambda: set(ids()) == set(wanted), shown, ignore=READ_ERRORS)
            host.let_through(ip)
            until(lambda: ids() == wanted, shown, ignore=READ_ERRORS)
        assert "Traceback" not in agent.log
    finally:
        agent.kill()
        for proxy in proxies:
            proxy.close()


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[list[ZooKeeper]]:
    members = zookeeper_cluster(tmp_path / "ensemble")
    yield members
    for member in members:
        member.remove()


@pytest.mark.parametrize("its_own", [True, False], ids=["its-own-member", "another-member"])
def test_three_agents_on_three_members_lose_one_of_each(
    its_own: bool, ensemble: list[ZooKeeper], clean_engine: Dockerd, agent: RunAgent
) -> None:
    """The agent that holds the nodes is killed, and a member with it. The others put them back."""
    names = [f"web{number}" for number in range(5)]
    for name in names:
        clean_engine.api.run(name, publish_all=True)
    uris = [f"zookeeper://{m.address}/services?session-timeout=4" for m in ensemble]
    running = [agent(*WORDS, uri) for uri in uris]
    path = "/services/web"

    def sessions() -> set[int]:
        held = holders(reader, path)
        return set(held.values()) if len(held) == len(names) else set()

    with client(ensemble[0]) as reader:
        session = until(lambda: sessions() if len(sessions()) == 1 else None, "one holder").pop()
    first = next(
        n for n, m in enumerate(ensemble) if f"sid=0x{session:x}," in m.four_letters("cons")
    )
    victim = first if its_own else (first + 1) % 3
    witness = ensemble[next(n for n in range(3) if n not in (first, victim))]
    running[first].kill()
    ensemble[victim].kill()
    with client(witness) as reader:
        until(lambda: sessions() and session not in sessions(), "another holder")
    ensemble[victim].start()
    agent(*WORDS, uris[first]).wait_log("recovered|Docker engine ")
    with client(ensemble[victim]) as reader:
        until(lambda: len(holders(reader, path)) == len(names), "all nodes, each once")
