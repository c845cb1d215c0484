"""Entries of other hosts in a registry, as their agents would write them.

The agent's own backends make the keys and values. The entries are then sent in large batches, so
100,000 of them stand within seconds. A lease or a session belongs to each host where the real
agents have one, but all hosts share one session in ZooKeeper.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import islice
from typing import Any, TypeVar

from kazoo.client import KazooClient

from benchmarks.agents import Host
from benchmarks.etcd import EtcdRegistry
from benchmarks.http_client import all_of, request
from benchmarks.registries import ConsulKVRegistry, ZooKeeperRegistry
from benchmarks.registry import BASE, NAME, Registry
from registrator.backend import Context, load
from registrator.backends.consul.kv_owners import Owners
from registrator.model import Entry, Identity, Service
from registrator.uri import parse

SERVICES = 100
# The operations of a batch: Consul takes 64, etcd 128. Batches that are sent at once.
IN_CONSUL, IN_ETCD, IN_ZOOKEEPER = 64, 128, 1000
AT_ONCE, CONNECTIONS = 32, 4
TTL = 100 * 365 * 86_400

T = TypeVar("T")


def services(host: Host) -> Iterator[Service]:
    """The services of a host. Every host runs the same ones, as the hosts of a fleet do.

    One of them has the name of the measured agent's services.
    """
    for number in range(SERVICES):
        name = f"app-{number}" if number else NAME
        yield Service(
            id=f"{host.name}:{name}-1:80",
            name=name,
            address=host.ip,
            port=10000 + number,
            private_port=80,
            tags=("blue", "http"),
            attrs={"region": "west", "version": "1.4.2"},
            container_id=hashlib.sha256(f"{host.name} {number}".encode()).hexdigest(),
            container_name=f"{name}-1",
            container_hostname=f"{number:012x}",
        )


def entries(registry: Registry, host: Host) -> list[Entry]:
    """The entries of a host, made by the agent's backend without a request."""
    uri = parse(registry.uri)
    with closing(load(uri.scheme)(Context(uri, Identity(host.engine, host.name)))) as backend:
        return [backend.entry(service) for service in services(host)]


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` items."""
    left = iter(items)
    return iter(lambda: [*islice(left, size)], [])


@contextmanager
def into_etcd(registry: EtcdRegistry) -> Iterator[Callable[[Sequence[Host]], None]]:
    """One lease without a TTL for each host, and its keys under it."""
    rpc = registry.rpc[1]

    def seed(hosts: Sequence[Host]) -> None:
        leases = {host: _lease(host) for host in hosts}
        grants = [rpc.LeaseGrantRequest(ID=lease, TTL=TTL) for lease in leases.values()]
        registry.call("Lease/LeaseGrant", [each.SerializeToString() for each in grants], AT_ONCE)
        puts = (
            rpc.PutRequest(key=entry.key.encode(), value=entry.content.encode(), lease=lease)
            for host, lease in leases.items()
            for entry in entries(registry, host)
        )
        transactions = (
            rpc.TxnRequest(success=[rpc.RequestOp(request_put=put) for put in part])
            for part in parts(puts, IN_ETCD)
        )
        registry.call("KV/Txn", [each.SerializeToString() for each in transactions], AT_ONCE)

    yield seed


def _lease(host: Host) -> int:
    """A lease's id that looks like another owner's."""
    return int.from_bytes(hashlib.sha256(host.engine.encode()).digest()[:8], "big") >> 1


@contextmanager
def into_consul(registry: ConsulKVRegistry) -> Iterator[Callable[[Sequence[Host]], None]]:
    """Keys with the flags of each host."""

    def operation(entry: Entry, flags: int) -> dict[str, object]:
        value = base64.b64encode(entry.content.encode()).decode()
        return {"KV": {"Verb": "set", "Key": entry.key, "Value": value, "Flags": flags}}

    def seed(hosts: Sequence[Host]) -> None:
        operations = (
            operation(entry, Owners(Identity(host.engine, host.name)).flags)
            for host in hosts
            for entry in entries(registry, host)
        )
        requests = [
            request("PUT", "/v1/txn", json.dumps(part).encode())
            for part in parts(operations, IN_CONSUL)
        ]
        all_of(registry.address, requests, CONNECTIONS)

    yield seed


@contextmanager
def into_zookeeper(registry: ZooKeeperRegistry) -> Iterator[Callable[[Sequence[Host]], None]]:
    """Ephemeral nodes of one session, which lasts as long as the context."""
    with registry.client() as client:

        def seed(hosts: Sequence[Host]) -> None:
            for service in services(hosts[0]):
                client.ensure_path(f"{BASE}/{service.name}")
            made = (entry for host in hosts for entry in entries(registry, host))
            sent = [_create(client, part) for part in parts(made, IN_ZOOKEEPER)]
            for answer in sent:
                failed = [each for each in answer.get(timeout=120) if isinstance(each, Exception)]
                if failed:
                    raise RuntimeError(f"ZooKeeper refused the entries: {failed[0]!r}")

        yield seed


def _create(client: KazooClient, part: Sequence[Entry]) -> Any:
    """Send one transaction. Returns kazoo's promise of the answer."""
    transaction = client.transaction()
    for entry in part:
        transaction.create(entry.key, entry.content.encode(), ephemeral=True)
    return transaction.commit_async()


Seeder = Callable[[Any], AbstractContextManager[Callable[[Sequence[Host]], None]]]
SEEDERS: dict[str, Seeder] = {
    "etcd": into_etcd,
    "skydns2": into_etcd,
    "consulkv": into_consul,
    "zookeeper": into_zookeeper,
}
