"""Figures of a running agent: memory, processor time, and writes without changes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from signal import SIGHUP

from support import etcd as etcdctl
from support.agent import Agent
from support.proxy import RecordingHTTPProxy, Request
from support.wait import until
from support.zookeeper import writes as writes_to

from benchmarks.agents import IP, agent, processor, resident
from benchmarks.etcd import EtcdRegistry
from benchmarks.figure import Figure, median
from benchmarks.http_client import Client, request
from benchmarks.registries import ZooKeeperRegistry, running
from benchmarks.registry import BASE, Registry
from benchmarks.simulated import SimEngine, simulated
from benchmarks.starting import registered, settle

MEMORY = {0: 36.0, 1000: 40.0, 5000: 60.0}
LIBRARIES = {"consul": "consul.base", "zookeeper": "kazoo.client"}
RESYNC, HOUR = 60.0, 3600.0
RESYNCS = 3


def memory(scheme: str, n: int, idle: float) -> Iterator[Figure]:
    """Resident memory with `n` services, and after `idle` more seconds and a resync."""
    with running(scheme) as registry, simulated(max(n, 1), n) as engine:
        with agent(engine.host, "-ip", IP, registry.uri) as process:
            if n:
                settle(registry, n, process)
            else:
                process.wait_log("published ports are registered")
            time.sleep(idle)
            before = resident(process.pid)
            resync(engine, process)
            time.sleep(idle)
            after = resident(process.pid)
    yield Figure(
        f"resident memory, {f'{n:,} containers' if n else 'idle'}: {scheme}",
        max(before, after), "MiB", MEMORY[n], _imports(scheme),
        note=f"{before:.1f} before a resync, {after:.1f} after; the floor is an interpreter"
        " that has imported the libraries",
    )  # fmt: skip


def _imports(scheme: str) -> float:
    """MiB of an interpreter that only imports the libraries."""
    code = "import registrator.system.memory as m; m.import_requests_without_charset_detection();"
    code += f"import docker, click, tenacity, {LIBRARIES[scheme]};"
    code += "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def idle(scheme: str, n: int, resyncs: int) -> Iterator[Figure]:
    """Processor time of an hour, from measured resyncs and measured quiet seconds."""
    with running(scheme) as registry, simulated(n) as engine:
        with agent(engine.host, "-ip", IP, "-resync", str(10**6), registry.uri) as process:
            settle(registry, n, process)
            time.sleep(3)
            began, moment = processor(process.pid), time.monotonic()
            time.sleep(resyncs)
            between = (processor(process.pid) - began) / (time.monotonic() - moment)
            costs, floors = [], []
            for _ in range(resyncs):
                began = processor(process.pid)
                resync(engine, process)
                time.sleep(1)
                costs.append(processor(process.pid) - began - between)
                floors.append(_listings(engine, registry))
    hour = between * HOUR + median(costs) * HOUR / RESYNC
    note = f"{between * 1000:.2g} ms a second and {median(costs) * 1000:.3g} ms a resync"
    note += f" (n={len(costs)}), scaled; the floor reads both listings"
    name = f"processor time an hour, {n:,} containers idle: {scheme}"
    yield Figure(name, hour, "s", 10, median(floors) * HOUR / RESYNC, note=note, n=len(costs))


def resync(engine: SimEngine, process: Agent) -> None:
    """Make the agent list, and wait until it asks the engine."""
    asked = engine.asked().get("containers/json", 0)
    process.signal(SIGHUP)
    until(lambda: engine.asked().get("containers/json", 0) > asked, "a resync")


def _listings(engine: SimEngine, registry: Registry) -> float:
    """Processor seconds for the requests of both listings, without parsing."""
    began = time.process_time()
    client = Client(engine.socket)
    client.ask(request("GET", "/v1.41/containers/json"))
    client.close()
    registry.count()
    return time.process_time() - began


def writes(n: int, refresh: float, refreshes: int) -> Iterator[Figure]:
    """Requests that write or keep alive, with `n` services and no changes.

    The run uses a shorter ``-ttl``, and scales the result to ``-ttl 30 -ttl-refresh 10``. Three
    resyncs happen meanwhile, and none may write.
    """
    words = ("-ip", IP, "-ttl", str(3 * refresh), "-ttl-refresh", str(refresh))
    with running("etcd") as registry, simulated(n) as engine:
        with agent(engine.host, *words, registry.uri) as process:
            settle(registry, n, process)
            yield from _etcd_writes(registry, engine, process, refresh * refreshes, refresh)
    for scheme in ("consul", "consulkv"):
        with running("consul") as registry, simulated(n) as engine:
            with closing(RecordingHTTPProxy(registry.consul.address)) as proxy:
                uri = f"{scheme}://{proxy.address}{BASE if scheme == 'consulkv' else ''}"
                with agent(engine.host, *words, uri) as process:
                    until(lambda: registered(process) >= n, process.tail)
                    seconds = refresh * refreshes
                    yield from _consul_writes(scheme, proxy, engine, process, seconds, refresh)
    with running("zookeeper") as registry, simulated(n) as engine:
        with agent(engine.host, "-ip", IP, registry.uri) as process:
            settle(registry, n, process)
            yield from _zookeeper_writes(registry, engine, process, refresh * refreshes)


def _pass(engine: SimEngine, process: Agent, seconds: float) -> None:
    """Let the time pass, with `RESYNCS` resyncs in it."""
    for _ in range(RESYNCS):
        resync(engine, process)
        time.sleep(seconds / RESYNCS)


def _etcd_writes(
    registry: EtcdRegistry, engine: SimEngine, process: Agent, seconds: float, refresh: float
) -> Iterator[Figure]:
    etcd = registry.etcd
    revision, alive = etcdctl.revision(etcd), etcdctl.requests(etcd, "LeaseKeepAlive")
    began = time.monotonic()
    _pass(engine, process, seconds)
    alive = etcdctl.requests(etcd, "LeaseKeepAlive") - alive
    yield _kept_alive("etcd", alive, time.monotonic() - began, refresh)
    yield _written("etcd", etcdctl.revision(etcd) - revision)


def _consul_writes(
    scheme: str,
    proxy: RecordingHTTPProxy,
    engine: SimEngine,
    process: Agent,
    seconds: float,
    refresh: float,
) -> Iterator[Figure]:
    time.sleep(refresh)
    before, began = len(proxy.writes), time.monotonic()
    _pass(engine, process, seconds)
    took, new = time.monotonic() - began, proxy.writes[before:]
    new = [each for each in new if not reads_only(each)]
    alive = [each for each in new if "/check/pass/" in each.path or "/renew/" in each.path]
    yield _kept_alive(scheme, len(alive), took, refresh)
    yield _written(scheme, len(new) - len(alive))


def reads_only(request: Request) -> bool:
    """Whether a request to Consul is a transaction that changes nothing, although it is a PUT."""
    if not request.path.startswith("/v1/txn"):
        return False
    verbs = {operation["KV"]["Verb"] for operation in json.loads(request.body)}
    return all(verb.startswith(("check-", "get")) for verb in verbs)


def _zookeeper_writes(
    registry: ZooKeeperRegistry, engine: SimEngine, process: Agent, seconds: float
) -> Iterator[Figure]:
    before = writes_to(registry.zookeeper)
    _pass(engine, process, seconds)
    yield _written("zookeeper", writes_to(registry.zookeeper) - before)


def _kept_alive(scheme: str, alive: int, took: float, refresh: float) -> Figure:
    """Keep-alives in an hour of ``-ttl-refresh 10``. The bound allows one more in the run."""
    hourly = alive / took * refresh * HOUR / 10
    most = HOUR / 10 * (1 + refresh / took)
    note = f"{alive} in {took:.1f} s of -ttl-refresh {refresh:g}, scaled"
    return Figure(f"keep-alives an hour: {scheme}", hourly, "", most, HOUR / 10, note=note)


def _written(scheme: str, count: int) -> Figure:
    return Figure(f"other writes, {RESYNCS} resyncs included: {scheme}", count, "", 0)
