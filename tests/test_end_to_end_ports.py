"""Ports, networks, aliases, an interface, IPv6 and swarm: a real engine, Consul and etcd."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Agent
from support.docker_api import APIError
from support.engine import Dockerd
from support.etcd import keys, revision
from support.namespace import Namespace
from support.proxy import RecordingHTTPProxy, TCPProxy
from support.servers import Consul, Etcd
from support.wait import until

RunAgent = Callable[..., Agent]
IP = "127.10.0.4"
WORDS = ("-ip", IP, "-hostname", "h", "-resync", "0")
LOST = (OSError, ValueError, AssertionError)


@pytest.fixture
def registry(consul: Consul, etcd: Etcd) -> Iterator[Registries]:
    made = Registries(consul, etcd)
    yield made
    made.close()


class Registries:
    """Consul behind a proxy that counts, and a prefix of etcd. `uris` are the agent's words."""

    count = 0

    def __init__(self, consul: Consul, etcd: Etcd, ip: str = "127.0.0.1") -> None:
        self.consul, self._etcd = consul, etcd
        Registries.count += 1
        self._prefix = f"/ports{Registries.count}"
        self.proxy = RecordingHTTPProxy(consul.address, ip)
        self._to_etcd = TCPProxy(etcd.address, ip)
        self.uris = (
            f"consul://{self.proxy.address}",
            f"etcd://{self._to_etcd.address}{self._prefix}",
        )

    def in_consul(self) -> dict[str, str]:
        """Name, address and port of each service by its id."""
        found: dict[str, Any] = self.consul.api("agent/services")
        return {k: f"{s['Service']} {s['Address']} {s['Port']}" for k, s in found.items()}

    def in_etcd(self) -> dict[str, str]:
        """The same of etcd, whose keys have the name and the id."""
        found = {}
        for key, value in keys(self._etcd, f"{self._prefix}/").items():
            name, service_id = key.removeprefix(f"{self._prefix}/").split("/")
            address, _, port = value.rpartition(":")
            found[service_id] = f"{name} {address.strip('[]')} {port}"
        return found

    def become(self, wanted: dict[str, str], only_in_consul: tuple[str, ...] = ()) -> None:
        """Wait until both hold this."""
        in_etcd = {key: text for key, text in wanted.items() if key not in only_in_consul}

        def state() -> str:
            return f"wanted {wanted}, Consul {self.in_consul()}, etcd {self.in_etcd()}"

        until(lambda: self.in_consul() == wanted and self.in_etcd() == in_etcd, state, ignore=LOST)

    def stay(self, agent: RunAgent, run: Agent, *words: str) -> None:
        """Kill the agent, start another one, and hold that several resyncs write nothing."""
        run.kill()
        writes, before = len(self.proxy.writes), revision(self._etcd)
        agent(*words, "-resync", "0.2", *self.uris)
        seen = self._listings()
        until(lambda: self._listings() >= seen + 4, "some resyncs of the next agent")
        assert self.proxy.writes[writes:] == []
        assert revision(self._etcd) == before

    def _listings(self) -> int:
        return sum("agent/services" in each.path for each in self.proxy.requests)

    def close(self) -> None:
        self.proxy.close()
        self._to_etcd.close()


def test_chosen_ports(clean_engine: Dockerd, registry: Registries, agent: RunAgent) -> None:
    api = clean_engine.api
    run = agent(*WORDS, *registry.uris)

    def start(**env: str) -> int:
        container = api.run("web", "two", publish_all=True, env={"SERVICE_NAME": "web", **env})
        return api.host_port(container, f"{env['SERVICE_PORTS']}/tcp")

    port = start(SERVICE_PORTS="80")
    api.run("work", env={"SERVICE_PORTS": "0", "SERVICE_NAME": "work"})
    wanted = {"h:web:80": f"web {IP} {port}", "h:work:0": f"work {IP} 0"}
    registry.become(wanted, ("h:work:0",))
    run.wait_log(r"etcd://\S+: h:work:0 .* is not registered: it has no port")
    api.run("bad", publish_all=True, env={"SERVICE_PORTS": "80;443"})
    run.wait_log(r"container bad .*: not registered: 80/tcp: SERVICE_PORTS has '80;443'")
    api.run("shut", env={"SERVICE_PORTS": "80"})
    run.wait_log(r"container shut .*: 80/tcp: SERVICE_PORTS names it, but it is not published")
    api.remove("web")
    wanted["h:web:443"] = f"web {IP} {start(SERVICE_PORTS='443')}"
    del wanted["h:web:80"]
    registry.become(wanted, ("h:work:0",))
    registry.stay(agent, run, *WORDS[:4])
    registry.become(wanted, ("h:work:0",))


def test_networks_and_aliases(clean_engine: Dockerd, registry: Registries, agent: RunAgent) -> None:
    """No resync corrects anything here: the events of networks do."""
    api = clean_engine.api
    for name in ("back", "shop_front"):
        api.network_create(name)
    run = agent(*WORDS, *registry.uris)
    api.run("db", network="back", env={"SERVICE_NETWORK": "back", "SERVICE_ALIASES": "sql,store"})
    project = {"com.docker.compose.project": "shop"}
    late = {"SERVICE_NETWORK": "front", "SERVICE_NAME": "late"}
    api.run(
        "late", "two", publish_all=True, labels=project, env={**late, "SERVICE_443_NETWORK": "host"}
    )
    api.run("bad", publish_all=True, env={"SERVICE_ALIASES": "a/../b"})
    run.wait_log(r"container late .*: 80/tcp: SERVICE_NETWORK names the network 'front', and")
    run.wait_log(r"container bad .*: not registered: 80/tcp: SERVICE_ALIASES has a path segment")

    def address(container: str, network: str) -> str:
        found = api.inspect(container)["NetworkSettings"]["Networks"][network]
        return str(found["IPAddress"])

    db = address("db", "back")
    outside = f"late-443 {IP} {api.host_port('late', '443/tcp')}"
    wanted = {
        "h:db:80": f"web {db} 80",
        "h:db:80:alias:sql": f"sql {db} 80",
        "h:db:80:alias:store": f"store {db} 80",
        "h:late:443": outside,
    }
    registry.become(wanted)
    api.network_connect("shop_front", "late")
    attached = wanted | {"h:late:80": f"late-80 {address('late', 'shop_front')} 80"}
    registry.become(attached)
    api.network_disconnect("shop_front", "late")
    registry.become(wanted)
    assert run.log.count("SERVICE_NETWORK names the network 'front'") == 2
    api.network_connect("shop_front", "late")
    registry.become(attached)
    registry.stay(agent, run, *WORDS[:4])
    registry.become(attached)
    api.remove("db")
    api.run("db", network="back", env={"SERVICE_NETWORK": "back", "SERVICE_ALIASES": "sql"})
    attached["h:db:80"] = f"web {address('db', 'back')} 80"
    attached["h:db:80:alias:sql"] = f"sql {address('db', 'back')} 80"
    del attached["h:db:80:alias:store"]
    registry.become(attached)


def test_macvlan_and_ipv6(clean_engine: Dockerd, registry: Registries, agent: RunAgent) -> None:
    api = clean_engine.api
    subnets = [{"Subnet": "172.29.5.0/24"}, {"Subnet": "fd00:5::/64"}]
    api.network_create("both", EnableIPv6=True, IPAM={"Config": subnets})
    env = {"SERVICE_NAME": "web", "SERVICE_80_ALIASES": "www"}
    port = api.host_port(api.run("web", publish_all=True, env=env))
    api.run("db", network="both", env={"SERVICE_NETWORK": "both", "SERVICE_NAME": "db"})
    vlan = has_macvlan(clean_engine)
    six = ("-ip", "2001:db8::7", "-hostname", "h", "-family", "6")
    run = agent(*six, "-resync", "0", *registry.uris)
    networks = api.inspect("db")["NetworkSettings"]["Networks"]["both"]
    wanted = {
        "h:web:80": f"web 2001:db8::7 {port}",
        "h:web:80:alias:www": f"www 2001:db8::7 {port}",
        "h:db:80": f"db {networks['GlobalIPv6Address']} 80",
    }
    if vlan:
        wanted["h:vlan:80"] = f"vlan {vlan} 80"
    registry.become(wanted)
    registry.stay(agent, run, *six)
    registry.become(wanted)


def has_macvlan(engine: Dockerd) -> str:
    """The address of a container in a macvlan, or "" if the kernel has none."""
    ipam = {"Config": [{"Subnet": "192.0.2.0/24"}]}
    env = {"SERVICE_NETWORK": "lan", "SERVICE_NAME": "vlan"}
    try:
        engine.api.network_create("lan", Driver="macvlan", Options={"parent": "eth0"}, IPAM=ipam)
        engine.api.run("vlan", network="lan", env=env)
    except APIError:
        return ""
    networks = engine.api.inspect("vlan")["NetworkSettings"]["Networks"]
    return str(networks["lan"]["IPAddress"])


def test_a_wrong_family_or_address_ends_the_command() -> None:
    for words in (["-family", "5"], ["-ip", "lan.1"], ["-ip", "a-name-that-is-too-long"]):
        done = subprocess.run(
            [sys.executable, "-m", "registrator", *words, "consul://"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"{words[0]} must be" in done.stderr


def test_the_address_of_an_interface(
    clean_engine: Dockerd, consul: Consul, etcd: Etcd, tmp_path: Path
) -> None:
    """The agent is on a host of its own, which lacks the interface at first."""
    host = Namespace()
    registry = Registries(consul, etcd, host.address)
    made: list[Agent] = []

    def agent(*words: str) -> Agent:
        folder = tmp_path / f"agent{len(made)}"
        made.append(Agent(folder, words, clean_engine.host, prefix=host.command))
        made[-1].start()
        return made[-1]

    port = clean_engine.api.host_port(clean_engine.api.run("web", publish_all=True))
    words = ("-ip", "lan", "-hostname", "h")
    try:
        run = agent(*words, "-resync", "0", *registry.uris)
        run.wait_log("the interface lan, which -ip names, has no address: waiting for one")
        run.wait_log(r"container web .*: not registered: 80/tcp: the interface lan, which -ip")
        host.inside("link", "add", "lan", "type", "bridge")
        host.inside("address", "add", "198.51.100.7/24", "dev", "lan")
        registry.become({"h:web:80": f"web 198.51.100.7 {port}"})
        host.inside("address", "add", "198.51.100.8/24", "dev", "lan")
        host.inside("address", "delete", "198.51.100.7/24", "dev", "lan")
        host.inside("address", "replace", "198.51.100.8/24", "dev", "lan")
        run.signal(signal.SIGHUP)
        registry.become({"h:web:80": f"web 198.51.100.8 {port}"})
        registry.stay(agent, run, *words)
        host.inside("address", "flush", "dev", "lan")
        made[-1].wait_log("interface lan has no address now: the services stay at 198.51.100.8")
        registry.become({"h:web:80": f"web 198.51.100.8 {port}"})
        host.inside("address", "add", "198.51.100.9/24", "dev", "lan")
        registry.become({"h:web:80": f"web 198.51.100.9 {port}"})
        assert "Traceback" not in "".join(each.log for each in made)
    finally:
        for each in made:
            each.stop()
        registry.close()
        host.remove()


def test_a_task_of_a_swarm(tmp_path: Path, registry: Registries, agent: RunAgent) -> None:
    """A port in host mode is registered, and one of the routing mesh is not."""
    engine = Dockerd(tmp_path / "engine")
    try:
        engine.start()
        api = engine.api
        api.import_image("web", expose=[80])
        run = agent(*WORDS, "-log-level", "debug", *registry.uris, docker_host=engine.host)
        place = {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}
        api.request("POST", "/swarm/init", place)
        services = [serve(engine, "hosted", "host", 8080), serve(engine, "meshed", "ingress", 8081)]

        def task(name: str) -> str:
            rows = (row for row in api.containers() if row["State"] == "running")
            found = [row["Names"][0][1:] for row in rows]
            return next((each for each in found if each.startswith(f"{name}.1.")), "")

        hosted = until(lambda: task("hosted"), "the task")
        registry.become({f"h:{hosted}:80": f"web {IP} 8080"})
        assert registry.consul.api("agent/services")[f"h:{hosted}:80"]["Tags"] == ["a"]
        run.wait_log(r"container meshed\.1\..*: not registered: 80/tcp: it is not published")
        registry.stay(lambda *words: agent(*words, docker_host=engine.host), run, *WORDS[:4])
        api.remove(hosted)
        again = until(lambda: (found := task("hosted")) != hosted and found, "another task")
        registry.become({f"h:{again}:80": f"web {IP} 8080"})
        for each in services:
            api.request("DELETE", f"/services/{each}")
        registry.become({})
    finally:
        engine.remove()


def serve(engine: Dockerd, name: str, mode: str, port: int) -> str:
    """A service of the swarm with one task. Returns its id."""
    container = {"Image": "web", "Env": ["SERVICE_NAME=web"], "Labels": {"SERVICE_TAGS": "a"}}
    ports = [{"TargetPort": 80, "PublishedPort": port, "PublishMode": mode, "Protocol": "tcp"}]
    body = {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": container,
            "RestartPolicy": {"Condition": "any", "Delay": 10**8},
        },
        "EndpointSpec": {"Ports": ports},
    }
    return str(engine.api.request("POST", "/services/create", body)["ID"])
