"""Registries by name: what the name stands for is asked again whenever a connection is made."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from faults.worlds import READ_ERRORS, WORLDS, World
from support.agent import Agent
from support.engine import Dockerd
from support.proxy import TCPProxy
from support.require import require
from support.servers import Consul, Etcd, Server, ZooKeeper, loopback_ip
from support.wait import until

IP = "127.10.0.1"
PORTS = {"consul": 8500, "etcd": 2379, "zookeeper": 2181}
INSIDE = 'mount --bind "$0" /etc/hosts && exec "$@"'

RunNamed = Callable[..., Agent]


class Names:
    """A file that is ``/etc/hosts`` to a command after `prefix`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "hosts"
        self.prefix = ["unshare", "--mount", "sh", "-c", INSIDE, str(self._file)]

    def point(self, name: str, ips: Sequence[str]) -> None:
        """Let a name stand for these addresses from now on, and no other name for any."""
        self._file.write_text("".join(f"{ip} {name}\n" for ip in ips))


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path)


@pytest.fixture
def agent(clean_engine: Dockerd, tmp_path: Path, names: Names) -> Iterator[RunNamed]:
    """Starts the agent, which knows the names."""
    made: list[Agent] = []

    def start(*uris: str) -> Agent:
        words = ["-ip", IP, "-hostname", "h", "-resync", "0", *uris]
        made.append(Agent(tmp_path, words, clean_engine.host, prefix=names.prefix))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.stop()
        assert "Traceback" not in each.log, each.tail(40)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A cluster whose members all have the scheme's default port."""
    port = PORTS[request.param]
    with socket.socket() as probe:
        try:
            probe.bind((loopback_ip(), port))
            free = True
        except OSError:
            free = False
    require(f"port {port}", free, "end what listens there at every address")
    made = WORLDS[request.param](tmp_path / "cluster", port=port)
    yield made
    made.remove()


def standing(world: World, alive: Sequence[Server]) -> set[str]:
    """The ids that stand at these members. At Consul each agent has its own."""
    world.readers = list(alive)
    if world.name != "consul":
        return {record[0] for record in world.entries()}
    return {key for each in alive if isinstance(each, Consul) for key in each.api("agent/services")}


def expect(agent: Agent, world: World, alive: Sequence[Server], *containers: str) -> None:
    wanted = {f"h:{name}:80" for name in containers}
    until(
        lambda: standing(world, alive) == wanted,
        lambda: f"{wanted}; {agent.tail(30)}",
        ignore=READ_ERRORS,
    )


@pytest.mark.parametrize("world", sorted(PORTS), indirect=True)
def test_a_name_is_what_it_stands_for_now(
    world: World, names: Names, agent: RunNamed, clean_engine: Dockerd
) -> None:
    """The name stands for one member. Then it stands for the others, and that one dies."""
    members = world.members[:2] if world.name == "consul" else world.members
    first, *others = members
    names.point("registry.test", [first.ip])
    path = "" if world.name == "consul" else "/services"
    run = agent(f"{world.name}://registry.test{path}")
    clean_engine.api.run("web0", publish_all=True)
    expect(run, world, [first], "web0")
    names.point("registry.test", [each.ip for each in others])
    first.kill()
    clean_engine.api.run("web1", publish_all=True)
    expect(run, world, others, "web0", "web1")
    names.point("registry.test", [each.ip for each in members])
    first.start()
    for number, member in enumerate([*others, first], 2):
        world.heal()
        member.kill()
        clean_engine.api.run(f"web{number}", publish_all=True)
        alive = [each for each in members if each is not member]
        expect(run, world, alive, *(f"web{n}" for n in range(number + 1)))
        member.start()


def test_ipv6(
    consul: Consul,
    etcd: Etcd,
    zookeeper: ZooKeeper,
    names: Names,
    agent: RunNamed,
    clean_engine: Dockerd,
) -> None:
    """By an address in brackets, and by a name that has no other."""
    enabled = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    require("IPv6", enabled.exists() and enabled.read_text() == "0\n", "net.ipv6.conf.lo")
    names.point("six.test", ["::1"])
    servers = {
        "consul": consul.address,
        "consulkv": consul.address,
        "etcd": etcd.address,
        "zookeeper": zookeeper.address,
    }
    proxies = {scheme: TCPProxy(address, "::1") for scheme, address in servers.items()}
    try:
        ports = {scheme: proxy.address.rpartition(":")[2] for scheme, proxy in proxies.items()}
        clean_engine.api.run("web", publish_all=True)
        for host, done in (("[::1]", "registered web"), ("six.test", "removed ")):
            uris = [f"{scheme}://{host}:{port}" for scheme, port in ports.items()]
            run = agent(*uris)
            for uri in uris:
                run.wait_log(f"{re.escape(uri)}: {done}")
            run.stop()
            clean_engine.api.clear()
    finally:
        for proxy in proxies.values():
            proxy.close()
