"""The real clusters of the campaigns, one for each kind of registry."""

from __future__ import annotations

from collections.abc import Callable

from faults.consul_world import ConsulWorld
from faults.etcd_world import EtcdWorld
from faults.kv_world import ConsulKVWorld
from faults.world import READ_ERRORS, Record, World
from faults.zookeeper_world import ZooKeeperWorld

__all__ = ["READ_ERRORS", "WORLDS", "Record", "World"]

WORLDS: dict[str, Callable[..., World]] = {
    world.name: world for world in (ConsulWorld, ConsulKVWorld, EtcdWorld, ZooKeeperWorld)
}
