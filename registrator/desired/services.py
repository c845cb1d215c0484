"""What a container offers: the services that follow from its ports and metadata. Pure.

The rules are those of gliderlabs/registrator, made deterministic. ``docs/services.md`` states them
for users. A port that breaks a rule is left out, with the reason, and the others go on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern

from registrator.desired.metadata import (
    Metadata,
    Setting,
    Settings,
    attributes_of,
    check_size,
    read_metadata,
    tags_of,
)
from registrator.desired.untrusted import Rejection, check_name, shown, valid_ip
from registrator.model import METADATA_PREFIX, Container, LeftOut, Offer, Port, Reason, Service


@dataclass(frozen=True, slots=True)
class Rules:
    """How the operator wants services to be made.

    `hostname` is the first part of ids. `host_ip` is the host's own address as found out,
    `forced_ip` that of ``-ip``. `ip_label` is the label of ``-useIpFromLabel``. `network` is the
    one whose address `internal` takes (empty: the container's main one).
    """

    hostname: str
    host_ip: str = ""
    forced_ip: str = ""
    internal: bool = False
    network: str = ""
    explicit: bool = False
    ip_label: str = ""
    tags: tuple[str, ...] = ()


def services(container: Container, rules: Rules, peer: Container | None = None) -> Offer:
    """What a running container offers, and each port that is left out.

    `peer` is the container whose network this one shares (``--network container:…``). Texts that
    many containers share, such as tags and keys, exist once in memory.
    """
    metadata = read_metadata(container)
    ports, unpublished = _ports(container, rules, peer)
    found: dict[str, Service] = {}
    left_out = [LeftOut(port, Reason.NOT_PUBLISHED) for port in unpublished]
    if not container.ports:
        left_out.append(LeftOut(None, Reason.NO_PORTS))
    for port in ports:
        try:
            service = _service(container, port, metadata, rules, peer, grouped=len(ports) > 1)
            if service.id in found:
                key = metadata.settings(port.private).get("id", Setting("", "its id")).key
                raise Rejection(f"{shown(key)} is the id of another of its ports", Reason.SAME_ID)
        except Rejection as why:
            left_out.append(LeftOut(port, why.reason, str(why)))
        else:
            found[service.id] = service
    return Offer(tuple(found.values()), tuple(left_out))


def default_name(image: str) -> str:
    """An image's last path segment without tag and digest."""
    return re.split("[:@]", image.rsplit("/", 1)[-1], maxsplit=1)[0]


def _ports(
    container: Container, rules: Rules, peer: Container | None
) -> tuple[list[Port], list[Port]]:
    """The ports to register, each with the binding that counts, and the unpublished ports."""
    bindings: dict[tuple[int, str], list[Port]] = {}
    for port in container.ports:
        bindings.setdefault((port.private, port.protocol), []).append(port)
    exposed = [Port(private, protocol) for private, protocol in sorted(bindings)]
    if rules.internal or _shares_network(container) or _on_host_network(container, peer):
        return exposed, []
    published = {
        key: [port for port in ports if port.host_port] for key, ports in sorted(bindings.items())
    }
    return (
        [_first_ipv4(candidates) for candidates in published.values() if candidates],
        [port for port in exposed if not published[port.private, port.protocol]],
    )


def _first_ipv4(candidates: list[Port]) -> Port:
    return next((port for port in candidates if ":" not in port.host_ip), candidates[0])


def _shares_network(container: Container) -> bool:
    return container.network_mode.startswith("container:")


def _on_host_network(container: Container, peer: Container | None) -> bool:
    where = peer if _shares_network(container) and peer is not None else container
    return where.network_mode == "host"


def _service(
    container: Container,
    port: Port,
    metadata: Metadata,
    rules: Rules,
    peer: Container | None,
    *,
    grouped: bool,
) -> Service:
    """The service of one port; raises `Rejection`."""
    settings = metadata.settings(port.private)
    _check_wanted(settings, rules)
    name = _name(container, port, metadata, grouped=grouped)
    check_size(settings)
    return Service(
        id=_id(container, port, settings, rules),
        name=intern(name),
        address=intern(_address(container, port, settings, rules, peer)),
        port=_number(port.host_port or port.private),
        private_port=_number(port.private),
        protocol=port.protocol,
        tags=(*tags_of(settings), *rules.tags, *(["udp"] if port.protocol == "udp" else [])),
        attrs=attributes_of(settings),
        container_id=container.id,
        container_name=container.name,
        container_hostname=container.hostname,
        former_addresses=tuple(filter(None, container.networks.values())),
    )


def _check_wanted(settings: Settings, rules: Rules) -> None:
    """Reject a port that the operator or the container leaves out on purpose."""
    ignore = settings.get("ignore", Setting())
    if ignore.value:
        raise Rejection(f"{shown(ignore.key)} is set", Reason.IGNORED)
    if rules.explicit and not settings.text("name"):
        raise Rejection("", Reason.NOT_NAMED)


def _name(container: Container, port: Port, metadata: Metadata, *, grouped: bool) -> str:
    setting = metadata.settings(port.private).get("name", Setting("", "its image's name"))
    name = setting.value.strip() or default_name(container.image)
    if not name:
        raise Rejection(f"{METADATA_PREFIX}NAME is not set, and its image has no name")
    if grouped and not metadata.has_own(port.private, "name"):
        name += f"-{port.private}"
    check_name(name, setting.key)
    return name


def _id(container: Container, port: Port, settings: Settings, rules: Rules) -> str:
    """The service's id. It tells UDP from the other protocols, as in the original."""
    if own := settings.text("id"):
        check_name(own, settings["id"].key)
        return own
    suffix = ":udp" if port.protocol == "udp" else ""
    made = f"{rules.hostname}:{container.name}:{port.private}{suffix}"
    check_name(made, "its id, made of host, container and port,")
    return made


def _address(
    container: Container,
    port: Port,
    settings: Settings,
    rules: Rules,
    peer: Container | None,
) -> str:
    """Where clients reach this port: the first of the ways to set it that is used."""
    label = container.labels.get(rules.ip_label, "").partition("/")[0].strip()
    if rules.ip_label and label:
        return valid_ip(label, f"its label {shown(rules.ip_label)}")
    if own := settings.text("ip"):
        return valid_ip(own, shown(settings["ip"].key))
    if _on_host_network(container, peer):
        return valid_ip(rules.forced_ip or rules.host_ip, "the host's address")
    if _shares_network(container):
        if peer is None:
            raise Rejection("the container whose network it shares is not there", Reason.NO_ADDRESS)
        return _container_ip(peer, rules, f"container {shown(peer.name)}, whose network it shares,")
    if rules.internal:
        return _container_ip(container, rules, "it")
    bound = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
    return valid_ip(rules.forced_ip or bound or rules.host_ip, "the host's address")


def _container_ip(container: Container, rules: Rules, who: str) -> str:
    own = container.networks
    if rules.network and rules.network not in own:
        raise Rejection(f"{who} is not on the network {shown(rules.network)}", Reason.NO_ADDRESS)
    address = own[rules.network] if rules.network else next(filter(None, own.values()), "")
    if not address:
        raise Rejection(f"{who} has no address of its own", Reason.NO_ADDRESS)
    return valid_ip(address, "its own address")


def _number(port: int) -> int:
    if not 0 < port < 65536:
        raise Rejection(f"port {port} is out of range")
    return port
