"""Which ports of a container can be services. ``docs/services.md`` states the rules for users."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from registrator.desired.metadata import Metadata, Setting, Settings
from registrator.desired.rules import Rules
from registrator.desired.untrusted import MAX_METADATA, MAX_SERVICES, Rejection, check_text, shown
from registrator.model import Container, LeftOut, Port, Reason

Ports = list[Port]

# The value of ``SERVICE_NETWORK`` that means the published port at the host's address.
HOST = "host"

_LISTED = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_NO_PORT = Port(0, "tcp")


@dataclass(frozen=True, slots=True)
class Listed:
    """The value of ``SERVICE_PORTS``: the key as it is spelt, and the ports, or why it is wrong.

    `ports` is None if the key is not set or wrong.
    """

    key: str = ""
    ports: frozenset[Port] | None = None
    fault: str = ""

    @property
    def portless(self) -> bool:
        """Whether the container is one service without a port."""
        return self.ports == frozenset({_NO_PORT})


def listed_ports(metadata: Metadata) -> Listed:
    """Read ``SERVICE_PORTS``. A key for one port (``SERVICE_80_PORTS``) counts for nothing."""
    text, key = metadata.generic.text("ports"), metadata.generic.get("ports", Setting()).key
    if not text:
        return Listed()
    try:
        check_text(text, key, MAX_METADATA, "a value")
        ports = frozenset(_listed(part.strip(), key) for part in text.split(","))
        if _NO_PORT in ports and len(ports) > 1:
            raise Rejection(f"{shown(key)} has ports beside 0, which means no port")
    except Rejection as why:
        return Listed(key, fault=str(why))
    return Listed(key, ports)


def _listed(part: str, key: str) -> Port:
    read = _LISTED.fullmatch(part)
    port = Port(int(read[1]), read[2] or "tcp") if read else _NO_PORT
    if not 0 < port.private < 65536 and part != "0":
        raise Rejection(f"{shown(key)} has '{shown(part)}', which is no port such as 80 or 53/udp")
    return port


def eligible(
    container: Container, metadata: Metadata, listed: Listed, rules: Rules, peer: Container | None
) -> tuple[Ports, list[LeftOut]]:
    """The ports to register, each with the binding that counts, and the other ports."""
    exposed = {Port(port.private, port.protocol) for port in container.ports}
    bindings = _bindings(_network_owner(container, peer))
    wanted = sorted(
        exposed if listed.ports is None else listed.ports,
        # If there are too many, the published ones count first, and then the lower ones.
        key=lambda port: (port not in bindings, port.private, port.protocol),
    )
    ports, unpublished = [], []
    for each in wanted:
        if not needs_binding(container, metadata.settings(each.private), rules, peer):
            ports.append(each)
        elif each in bindings:
            ports.append(min(bindings[each], key=lambda bound: _binding_rank(bound, rules)))
        elif listed.key:
            ports.append(each)  # `check_listed` says what is wrong with it.
        else:
            unpublished.append(LeftOut(each, Reason.NOT_PUBLISHED))
    others = sorted(exposed.difference(wanted), key=lambda port: (port.private, port.protocol))
    left_out = [LeftOut(each, Reason.NOT_LISTED) for each in others]
    missing = _missing(metadata, exposed.union(wanted))
    return ports, [*left_out, *unpublished, *missing][:MAX_SERVICES]


def _missing(metadata: Metadata, known: Collection[Port]) -> Iterator[LeftOut]:
    """The ports that only a key names, such as a mistyped one. Nobody tells their protocol."""
    for number in sorted(metadata.of_port.keys() - {str(port.private) for port in known}):
        if re.fullmatch("[1-9][0-9]{0,4}", number):
            key = min(setting.key for setting in metadata.of_port[number].values())
            text = f"{shown(key)} names it, and the container does not have it"
            yield LeftOut(Port(int(number), "tcp"), Reason.NO_SUCH_PORT, text)


def check_listed(
    container: Container,
    port: Port,
    settings: Settings,
    listed: Listed,
    rules: Rules,
    peer: Container | None,
) -> None:
    """Raise `Rejection` if ``SERVICE_PORTS`` is wrong, or names a port that nobody can reach."""
    if listed.fault:
        raise Rejection(listed.fault)
    if not listed.key or listed.portless or port.host_port:
        return
    if needs_binding(container, settings, rules, peer):
        text = f"{shown(listed.key)} names it, but it is not published"
        raise Rejection(text, Reason.NOT_REACHABLE)


def needs_binding(
    container: Container, settings: Settings, rules: Rules, peer: Container | None
) -> bool:
    """Whether clients can reach a port only if it is published."""
    if on_host_network(container, peer):
        return False
    if network := settings.text("network"):
        return network == HOST
    return not (rules.internal or shares_network(container))


def shares_network(container: Container) -> bool:
    """Whether it has no network of its own (``--network container:…``)."""
    return container.network_mode.startswith("container:")


def on_host_network(container: Container, peer: Container | None) -> bool:
    """Whether its ports are ports of the host, by itself or by its peer."""
    return _network_owner(container, peer).network_mode == HOST


def _network_owner(container: Container, peer: Container | None) -> Container:
    """The container itself, or the one whose network it shares."""
    return peer if shares_network(container) and peer is not None else container


def _bindings(container: Container) -> dict[Port, Ports]:
    """The bindings of each published port."""
    found: dict[Port, Ports] = {}
    for port in container.ports:
        if port.host_port:
            found.setdefault(Port(port.private, port.protocol), []).append(port)
    return found


def _binding_rank(bound: Port, rules: Rules) -> bool:
    """The first binding to an IPv4 address counts.

    With ``-family 6`` it is the first one to IPv6, if the address to register is one, too.
    """
    is_6 = ":" in bound.host_ip
    return not (is_6 and ":" in at_host(bound, rules)) if rules.family == 6 else is_6


def at_host(port: Port, rules: Rules) -> str:
    """The host's address at which a port is registered, or an empty text if none is known."""
    bound = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
    return rules.forced_ip or bound or rules.host_ip
