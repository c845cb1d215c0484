"""The DNS of Consul."""

from __future__ import annotations

from support.consul import backend, register, service
from support.dns import instances
from support.servers import Consul
from support.wait import until

from readers.following import SERVICE, Reader, Scene

NAME = f"{SERVICE}.service.consul"


class ConsulDNS(Reader):
    """The SRV records of the service over TCP, which has room for all of them."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    def addresses(self) -> set[str]:
        return instances(self._consul.dns_address, NAME, "+tcp")


def test_srv_records(scene: Scene, consul: Consul) -> None:
    scene.follow(ConsulDNS(consul), f"consul://{consul.address}")


def test_an_answer_over_udp_lacks_instances(consul: Consul) -> None:
    """Readers need TCP, or EDNS with enough room."""
    agent = backend(f"consul://{consul.address}")
    wanted = [service(number, name=SERVICE) for number in range(100)]
    register(agent, *wanted)
    agent.close()
    all_of_them = {f"{each.address}:{each.port}" for each in wanted}
    server = consul.dns_address
    until(lambda: instances(server, NAME, "+tcp") == all_of_them, "all in the DNS")
    # Dig would ask again over TCP.
    for options, some in ((["+noedns"], 3), (["+bufsize=1232"], 10), (["+bufsize=4096"], 60)):
        found = instances(server, NAME, "+notcp", "+ignore", *options)
        assert found < all_of_them
        assert len(found) >= some
    assert instances(server, NAME, "+notcp", "+ignore", "+bufsize=8192") == all_of_them
