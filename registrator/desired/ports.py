"""Which ports of a container can be services. ``docs/services.md`` states the rules for users."""

from registrator.desired.rules import Rules
from registrator.model import Container, Port

Ports = list[Port]


def eligible(container: Container, rules: Rules, peer: Container | None) -> tuple[Ports, Ports]:
    """The ports to register, each with the binding that counts, and the unpublished ports."""
    bindings: dict[Port, Ports] = {}
    for port in container.ports:
        bindings.setdefault(Port(port.private, port.protocol), []).append(port)
    exposed = sorted(bindings, key=lambda port: (port.private, port.protocol))
    # If there are too many, the published ones count first.
    exposed.sort(key=lambda port: not any(each.host_port for each in bindings[port]))
    if rules.internal or shares_network(container) or on_host_network(container, peer):
        return exposed, []
    published, unpublished = [], []
    for each in exposed:
        bound = [port for port in bindings[each] if port.host_port]
        # The first binding to an IPv4 address counts.
        published += sorted(bound, key=lambda port: ":" in port.host_ip)[:1]
        unpublished += [] if bound else [each]
    return published, unpublished


def shares_network(container: Container) -> bool:
    """Whether it has no network of its own (``--network container:…``)."""
    return container.network_mode.startswith("container:")


def on_host_network(container: Container, peer: Container | None) -> bool:
    """Whether its ports are ports of the host, by itself or by its peer."""
    where = peer if shares_network(container) and peer is not None else container
    return where.network_mode == "host"
