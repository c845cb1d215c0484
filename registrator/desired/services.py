"""What a container offers: from its ports and its ``SERVICE_*`` metadata to services. Pure.

The rules are gliderlabs/registrator's, made deterministic; ``docs/services.md`` states them for
users. What a container sets is untrusted input: a service whose metadata breaks a limit is left
out with one warning that names container and key, and all the others go on. What is left out on
purpose is told in a note, for whoever asks why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from registrator.desired.untrusted import (
    MAX_ATTRIBUTES,
    MAX_METADATA,
    MAX_NAME,
    MAX_TAG,
    Rejection,
    check_name,
    check_text,
    shown,
    size,
    unprintable,
    valid_ip,
)
from registrator.model import Container, Port, Service

PREFIX = "SERVICE_"

# Keys that say what a service is; every other one is an attribute.
OWN_KEYS = frozenset({"name", "id", "tags", "ip", "ignore"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator said about how services are made.

    `hostname` is the first part of ids, `host_ip` the host's own address as found out, `forced_ip`
    that of ``-ip``, `ip_label` the label of ``-useIpFromLabel``, `network` the one whose address
    `internal` takes (empty: the container's main one).
    """

    hostname: str
    host_ip: str = ""
    forced_ip: str = ""
    internal: bool = False
    network: str = ""
    explicit: bool = False
    ip_label: str = ""
    tags: tuple[str, ...] = ()


class Setting(NamedTuple):
    """A metadata value, and its key as the container spells it."""

    value: str
    key: str


@dataclass
class _Metadata:
    """A container's ``SERVICE_*`` pairs, keys in lower case without prefix and port."""

    generic: dict[str, Setting] = field(default_factory=dict)
    of_port: dict[str, dict[str, Setting]] = field(default_factory=dict)

    def settings(self, port: int) -> dict[str, Setting]:
        """What holds for one internal port."""
        return self.generic | self.of_port.get(str(port), {})

    def has_own(self, port: int, key: str) -> bool:
        """Whether the key is set, and not empty, for this very port."""
        own = self.of_port.get(str(port), {}).get(key)
        return own is not None and own.value.strip() != ""


class Offer(NamedTuple):
    """A container's services by port, warnings about those that cannot be registered, and a note.

    The note names the ports that are left out on purpose, and why; it is empty where none is.
    """

    services: tuple[Service, ...] = ()
    warnings: tuple[str, ...] = ()
    note: str = ""


def services(container: Container, rules: Rules, peer: Container | None = None) -> Offer:
    """What a running container offers.

    What the services of many containers share, as tags and keys, is kept once.
    `peer` is the container whose network this one shares (``--network container:…``).
    """
    metadata = _metadata(container)
    ports = _eligible(container, rules, peer)
    found: dict[str, Service] = {}
    refused: dict[str, list[Port]] = {}
    unwanted: dict[str, list[Port]] = {}
    for port in ports:
        settings = metadata.settings(port.private)
        if why := _unwanted(settings, rules):
            unwanted.setdefault(why, []).append(port)
            continue
        try:
            name = _name(container, port, metadata, grouped=len(ports) > 1)
            service = _service(container, port, name, settings, rules, peer)
            if service.id in found:
                taken = shown(settings["id"].key) if "id" in settings else "its id"
                raise Rejection(f"{taken} is the id of another of its ports as well")
        except Rejection as reason:
            refused.setdefault(str(reason), []).append(port)
        else:
            found[service.id] = service
    warnings = tuple(
        f"container {shown(container.name)} ({shown(container.id[:12])}): {reason};"
        f" not registered: {_listed(left_out)}"
        for reason, left_out in refused.items()
    )
    return Offer(tuple(found.values()), warnings, _note(container, ports, unwanted))


def split_tags(text: str) -> tuple[str, ...]:
    r"""The tags of a comma-separated list, in order; ``\,`` is a comma within a tag."""
    parts = (part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", text))
    return tuple(intern(part) for part in parts if part)


def default_name(image: str) -> str:
    """An image's last path segment without tag and digest."""
    return re.split("[:@]", image.rsplit("/", 1)[-1], maxsplit=1)[0]


def _metadata(container: Container) -> _Metadata:
    """The container's pairs; a label wins over a variable of the same key.

    Of two spellings of one key in one source the one in upper case wins, which sorts first.
    """
    found = _Metadata()
    for source in (container.env, container.labels):
        for key in sorted((k for k in source if k.startswith(PREFIX)), reverse=True):
            # Without a rest after the port (`SERVICE_80`), it is an attribute of that name.
            match = re.fullmatch(r"(?:([0-9]+)_)?(.+)", key[len(PREFIX) :], re.DOTALL)
            if match is not None:
                port, name = match.groups()
                target = found.generic if port is None else found.of_port.setdefault(port, {})
                target[intern(name.lower())] = Setting(source[key], key)
    return found


def _eligible(container: Container, rules: Rules, peer: Container | None) -> list[Port]:
    """The ports to register, each once and in order, with the binding that counts."""
    bindings: dict[tuple[int, str], list[Port]] = {}
    for port in container.ports:
        bindings.setdefault((port.private, port.protocol), []).append(port)
    if rules.internal or _shares_network(container) or _on_host_network(container, peer):
        return [Port(private, protocol) for private, protocol in sorted(bindings)]
    published = ([p for p in bindings[key] if p.host_port] for key in sorted(bindings))
    return [_first_ipv4(candidates) for candidates in published if candidates]


def _unwanted(settings: Mapping[str, Setting], rules: Rules) -> str:
    """Why a port is not to be registered; an empty text where it is."""
    if "ignore" in settings and settings["ignore"].value:
        return f"{shown(settings['ignore'].key)} is set"
    if rules.explicit and not ("name" in settings and settings["name"].value.strip()):
        return f"-explicit is given, and it has no {PREFIX}NAME"
    return ""


def _note(
    container: Container, eligible: Iterable[Port], unwanted: Mapping[str, Iterable[Port]]
) -> str:
    """One line for all ports left out on purpose; an empty text where none is."""
    taken = {(port.private, port.protocol) for port in eligible}
    rest = sorted({(port.private, port.protocol) for port in container.ports} - taken)
    reasons = [f"{_listed(Port(*each) for each in rest)}: it is not published"] if rest else []
    reasons += [f"{_listed(ports)}: {why}" for why, ports in unwanted.items()]
    if not container.ports:
        reasons = ["it has no ports"]
    if not reasons:
        return ""
    return (
        f"container {shown(container.name)} ({shown(container.id[:12])}):"
        f" not registered: {'; '.join(reasons)}"
    )


def _listed(ports: Iterable[Port]) -> str:
    return ", ".join(f"{port.private}/{port.protocol}" for port in ports)


def _first_ipv4(candidates: list[Port]) -> Port:
    return next((port for port in candidates if ":" not in port.host_ip), candidates[0])


def _shares_network(container: Container) -> bool:
    return container.network_mode.startswith("container:")


def _on_host_network(container: Container, peer: Container | None) -> bool:
    where = peer if _shares_network(container) and peer is not None else container
    return where.network_mode == "host"


def _name(container: Container, port: Port, metadata: _Metadata, *, grouped: bool) -> str:
    setting = metadata.settings(port.private).get("name", Setting("", "its image's name"))
    name = setting.value.strip() or default_name(container.image)
    if not name:
        raise Rejection(f"{PREFIX}NAME is not set, and its image has no name")
    if grouped and not metadata.has_own(port.private, "name"):
        name += f"-{port.private}"
    check_name(name, setting.key)
    return name


def _service(
    container: Container,
    port: Port,
    name: str,
    settings: Mapping[str, Setting],
    rules: Rules,
    peer: Container | None,
) -> Service:
    _check_size(settings)
    udp = port.protocol == "udp"
    tags = settings.get("tags", Setting("", ""))
    return Service(
        id=_id(container, port, settings, rules),
        name=intern(name),
        address=intern(_address(container, port, settings, rules, peer)),
        port=_number(port.host_port or port.private),
        private_port=_number(port.private),
        protocol=port.protocol,
        tags=(*_own_tags(tags), *rules.tags, *(("udp",) if udp else ())),
        attrs=_attributes(settings.items()),
        container_id=container.id,
        container_name=container.name,
        container_hostname=container.hostname,
        former_addresses=tuple(filter(None, container.networks.values())),
    )


def _id(container: Container, port: Port, settings: Mapping[str, Setting], rules: Rules) -> str:
    """The service's id. Of the protocols only UDP is told apart, as in the original."""
    given = settings.get("id", Setting("", ""))
    if own := given.value.strip():
        check_name(own, given.key)
        return own
    suffix = ":udp" if port.protocol == "udp" else ""
    made = f"{rules.hostname}:{container.name}:{port.private}{suffix}"
    check_name(made, "its id, made of host, container and port,")
    return made


def _address(
    container: Container,
    port: Port,
    settings: Mapping[str, Setting],
    rules: Rules,
    peer: Container | None,
) -> str:
    """Where clients reach this port; the first that is set of the ways to say it."""
    label = container.labels.get(rules.ip_label, "").partition("/")[0].strip()
    if rules.ip_label and label:
        return valid_ip(label, f"its label {shown(rules.ip_label)}")
    if "ip" in settings and (own := settings["ip"].value.strip()):
        return valid_ip(own, shown(settings["ip"].key))
    if _on_host_network(container, peer):
        return valid_ip(rules.forced_ip or rules.host_ip, "the host's address")
    if _shares_network(container):
        if peer is None:
            raise Rejection("it shares the network of a container that is not there")
        return _container_ip(peer, rules, f"container {shown(peer.name)}, whose network it shares,")
    if rules.internal:
        return _container_ip(container, rules, "it")
    bound = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
    return valid_ip(rules.forced_ip or bound or rules.host_ip, "the host's address")


def _container_ip(container: Container, rules: Rules, who: str) -> str:
    if rules.network and rules.network not in container.networks:
        raise Rejection(f"{who} is not on the network {shown(rules.network)}")
    own = container.networks
    address = own[rules.network] if rules.network else next(filter(None, own.values()), "")
    if not address:
        raise Rejection(f"{who} has no address of its own")
    return valid_ip(address, "its own address")


def _number(port: int) -> int:
    if not 0 < port < 65536:
        raise Rejection(f"port {port} is out of range")
    return port


def _own_tags(setting: Setting) -> tuple[str, ...]:
    tags = split_tags(setting.value)
    for tag in tags:
        check_text(tag, setting.key, MAX_TAG, "a tag")
    return tags


def _attributes(settings: Iterable[tuple[str, Setting]]) -> dict[str, str]:
    attrs = {}
    for name, (value, key) in sorted(settings):
        if name in OWN_KEYS:
            continue
        check_text(name, key, MAX_NAME, "a name")
        # A check's script may well have several lines.
        if unprintable(re.sub(r"[\t\n\r]", "", value)):
            raise Rejection(f"{shown(key)} has control characters")
        attrs[name] = value
    if len(attrs) > MAX_ATTRIBUTES:
        raise Rejection(f"it has {len(attrs)} {PREFIX}* attributes, more than {MAX_ATTRIBUTES}")
    return attrs


def _check_size(settings: Mapping[str, Setting]) -> None:
    sizes = {s.key: size(s.key) + size(s.value) for s in settings.values()}
    if sum(sizes.values()) > MAX_METADATA:
        largest = max(sorted(sizes), key=sizes.__getitem__)
        raise Rejection(
            f"its {PREFIX}* metadata has over {MAX_METADATA} bytes, most of them {shown(largest)}"
        )
