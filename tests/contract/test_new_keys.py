"""With every new metadata key in use, a resync without a change writes nothing."""

from __future__ import annotations

from contract.kinds import LOCAL, SERVERS, everywhere, over
from contract.registry import HOST, Registry, ours, reconcile
from registrator.desired.metadata import OWN_KEYS
from registrator.desired.new_keys import NEW_KEYS, NUMBERED_CHECK
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.model import Container, Port, Service

# A value for each new key, with which it does something.
VALUES = {
    "ports": "80,53/udp",
    "network": "front",
    "aliases": "shop,cart",
    "health": "true",
    "enable_tag_override": "true",
    "weight_passing": "10",
    "weight_warning": "0",
}
CHECKS = {
    "check_ttl": "1h", "check_2_tcp": "1", "check_2_interval": "1h", "check_3_ttl": "1h",
    "check_10_http": "/", "check_10_interval": "1h",
}  # fmt: skip


def derived() -> tuple[Service, ...]:
    """The services of one container with all keys, made anew as after a start of the agent."""
    keys = {key: VALUES[key] for key in NEW_KEYS} | CHECKS | {"tags": "a,b", "region": "eu"}
    container = Container(
        id="1" * 64, name="web", image="nginx", hostname="1",
        env={f"SERVICE_{key.upper()}": value for key, value in keys.items()},
        networks={"bridge": "10.0.0.2", "front": "10.0.0.1"},
        ports=(Port(80, "tcp", "0.0.0.0", 8080), Port(53, "udp", "0.0.0.0", 53)),
    )  # fmt: skip
    offer = services(container, Rules(HOST, "10.0.0.2"))
    assert offer.left_out == ()
    return offer.services


def test_every_key_is_either_former_or_has_a_value_here() -> None:
    assert OWN_KEYS - {"name", "id", "tags", "ip", "ignore"} == NEW_KEYS
    assert VALUES.keys() >= NEW_KEYS
    assert [key for key in CHECKS if not NUMBERED_CHECK.fullmatch(key)] == ["check_ttl"]
    made = derived()
    assert {each.name for each in made} == {
        f"{name}-{port}" for name in ("nginx", "shop", "cart") for port in (80, 53)
    }
    assert {each.address for each in made} == {"10.0.0.1"}
    assert {(each.weights, each.tag_override) for each in made} == {((10, 0), True)}
    assert all(not NEW_KEYS & each.attrs.keys() for each in made)


@everywhere
def test_a_resync_without_a_change_writes_nothing(registry: Registry) -> None:
    backend = registry.make(**registry.leased)
    assert reconcile(backend, *derived()).rejected == {}
    backend.keepalive()
    before, seen = registry.index(), ours(backend)
    assert len(seen) == len(derived())
    for _ in range(3):
        assert not reconcile(backend, *derived()).plan
    assert registry.index() == before


# In ZooKeeper a start takes over all nodes, since they hang on the former session.
@over([kind for kind in (*LOCAL, *SERVERS) if not kind.startswith("zookeeper")])
def test_a_start_without_a_change_writes_nothing(registry: Registry) -> None:
    reconcile(registry.make(), *derived())
    before = registry.index()
    again = registry.make()
    for _ in range(2):
        assert not reconcile(again, *derived()).plan
    assert registry.index() == before
