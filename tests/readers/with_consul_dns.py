"""The DNS of Consul."""

from __future__ import annotations

from support.dns import instances
from support.servers import Consul

from readers.following import SERVICE, Reader, Scene


class ConsulDNS(Reader):
    """The SRV records of the service over TCP, which has room for all of them."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    def addresses(self) -> set[str]:
        return instances(self._consul.dns_address, f"{SERVICE}.service.consul", "+tcp")


def test_srv_records(scene: Scene, consul: Consul) -> None:
    scene.follow(ConsulDNS(consul), f"consul://{consul.address}")
