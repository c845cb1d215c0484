"""Derives the services of one container from its ports and metadata. Pure functions.

The rules are those of gliderlabs/registrator, made deterministic. ``docs/services.md`` states them
for users. A port that breaks a rule is left out, with the reason, and the others go on.
"""

import re
from dataclasses import dataclass, field
from sys import intern

from registrator.desired.addresses import address_of
from registrator.desired.groups import Group, aliases, distinct
from registrator.desired.metadata import (
    Metadata,
    Setting,
    Settings,
    attributes_of,
    boolean,
    check_size,
    read_metadata,
    tags_of,
    weights_of,
)
from registrator.desired.ports import Listed, Ports, check_listed, eligible, listed_ports
from registrator.desired.rules import Rules
from registrator.desired.untrusted import (
    MAX_RECORDS,
    MAX_SERVICES,
    MAX_TAG,
    Rejection,
    check_name,
    check_text,
    shown,
)
from registrator.desired.untrusted import size as text_size
from registrator.model import (
    METADATA_PREFIX,
    Container,
    ContainerHealth,
    LeftOut,
    Offer,
    Port,
    Reason,
    Service,
)

# An image that was given by its id begins so. Then this label can name the service.
IMAGE_ID = "sha256:"
COMPOSE_SERVICE = "com.docker.compose.service"

# A port that the operator or the container leaves out for these reasons costs next to nothing.
ON_PURPOSE = frozenset({Reason.IGNORED, Reason.NOT_NAMED})


def services(container: Container, rules: Rules, peer: Container | None = None) -> Offer:
    """The services of a running container, and each port that is left out.

    `peer` is the container whose network this one shares (``--network container:…``). Texts that
    many containers share, such as tags and keys, exist once in memory.
    """
    if not rules.filter.admits(container, peer):
        return Offer(left_out=(LeftOut(None, Reason.FILTERED),))
    if rules.on_pause and container.paused:
        return Offer(left_out=(LeftOut(None, Reason.PAUSED),))
    metadata = read_metadata(container)
    listed = listed_ports(metadata)
    ports, left_out = eligible(container, metadata, listed, rules, peer)
    if container.unreadable:
        left_out.append(LeftOut(None, Reason.UNREADABLE, container.unreadable))
    elif not container.ports and not ports:
        left_out.append(_no_ports(metadata, listed))
    groups: list[Group] = []
    tried = size = 0
    for index, port in enumerate(ports):
        made = _Maker(container, port, metadata, listed, len(ports) > 1, rules, peer).made()
        if isinstance(made, LeftOut) and made.reason in ON_PURPOSE:
            left_out.append(made)
            continue
        group = made.services if isinstance(made, Group) else ()
        tried, size = tried + (len(group) or 1), size + sum(map(_size, group))
        if tried > MAX_SERVICES or size > MAX_RECORDS:
            left_out.append(_too_many(ports[index:]))
            break
        if isinstance(made, LeftOut):
            left_out.append(made)
        else:
            groups.append(made)
    found, same = distinct(groups)
    return Offer(found, (*left_out, *same))


def _no_ports(metadata: Metadata, listed: Listed) -> LeftOut:
    """Why a container without ports has no service."""
    if listed.fault and not metadata.generic.text("ignore"):
        return LeftOut(None, Reason.REJECTED, listed.fault)
    return LeftOut(None, Reason.NO_PORTS)


def _size(service: Service) -> int:
    """About how many bytes a registry's record of a service has."""
    texts = (service.id, service.name, *service.tags, *service.attrs, *service.attrs.values())
    return sum(map(text_size, texts))


def _too_many(ports: Ports) -> LeftOut:
    """Why these ports are left out, in one text."""
    first = f"{ports[0].private}/{ports[0].protocol}"
    which = f"port {first} is" if len(ports) == 1 else f"{len(ports)} ports from {first} on are"
    limits = f"{MAX_SERVICES} services or {MAX_RECORDS // 1024**2} MiB of metadata"
    return LeftOut(None, Reason.TOO_MANY, f"{which} too many: a container may have {limits}")


def default_name(container: Container) -> str:
    """The last path segment of an image without tag and digest.

    An image that was given by its id has no name: the Compose service or the container gives it.
    """
    if container.image.startswith(IMAGE_ID):
        return container.labels.get(COMPOSE_SERVICE, "").strip() or container.name
    return re.split("[:@]", container.image.rsplit("/", 1)[-1], maxsplit=1)[0]


@dataclass(slots=True)
class _Maker:
    """Makes the services of one port. All methods but `made` raise `Rejection`.

    `several` says whether the container has other ports as well.
    """

    container: Container
    port: Port
    metadata: Metadata
    listed: Listed
    several: bool
    rules: Rules
    peer: Container | None
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = self.metadata.settings(self.port.private)

    def made(self) -> Group | LeftOut:
        """The services of this port, or why it has none."""
        try:
            service = self.service()
            key = self.settings.get("id", Setting("", "its id")).key
            return Group(key, (service, *aliases(service, self.settings, self._suffix("aliases"))))
        except Rejection as why:
            return LeftOut(self.port, why.reason, str(why))

    def service(self) -> Service:
        """The service of this port."""
        container, port = self.container, self.port
        self._check_wanted()
        check_listed(container, port, self.settings, self.listed, self.rules, self.peer)
        name = self._name()
        check_size(self.settings)
        return Service(
            id=self._id(),
            name=intern(name),
            address=intern(address_of(container, port, self.settings, self.rules, self.peer)),
            port=self._number(port.host_port or port.private),
            private_port=self._number(port.private),
            protocol=port.protocol,
            tags=self._tags(),
            attrs=attributes_of(self.settings),
            container_id=container.id,
            container_name=container.name,
            container_hostname=container.hostname,
            health=self._health(),
            weights=weights_of(self.settings),
            tag_override=boolean(self.settings, "enable_tag_override", default=False),
            former_addresses=tuple(filter(None, container.networks.values())),
        )

    def _check_wanted(self) -> None:
        """Reject a port that the operator or the container leaves out on purpose."""
        ignore = self.settings.get("ignore", Setting())
        if ignore.value:
            raise Rejection(f"{shown(ignore.key)} is set", Reason.IGNORED)
        if self.rules.explicit and not self.settings.text("name"):
            raise Rejection("", Reason.NOT_NAMED)

    def _health(self) -> ContainerHealth:
        """The health of the service, or NONE if the operator or the container does not want it."""
        counts = self.rules.health and boolean(self.settings, "health", default=True)
        return self.container.health if counts else ContainerHealth.NONE

    def _name(self) -> str:
        setting, derived = self.settings.get("name", Setting()), self.container.derived
        name, key = setting.value.strip(), setting.key
        if not name and derived.name_error:
            raise Rejection(derived.name_error)
        if not name:
            name, key = derived.name.strip(), "-name"
        if not name:
            name, key = default_name(self.container), "its image's name"
        if not name:
            raise Rejection(f"{METADATA_PREFIX}NAME is not set, and its image has no name")
        name += self._suffix("name")
        check_name(name, key)
        return name

    def _suffix(self, key: str) -> str:
        """The end of a name that other ports of the container have as well."""
        own = self.metadata.has_own(self.port.private, key)
        return f"-{self.port.private}" if self.several and not own else ""

    def _tags(self) -> tuple[str, ...]:
        """The tags that the container sets, then those of the operator."""
        derived = self.container.derived
        if derived.tags_error:
            raise Rejection(derived.tags_error)
        for tag in derived.tags:
            check_text(tag, "-tags", MAX_TAG, "a tag")
        own = tags_of(self.settings)
        return own + self.rules.tags + derived.tags + ("udp",) * (self.port.protocol == "udp")

    def _id(self) -> str:
        """The service's id. It tells UDP from the other protocols, as in the original."""
        if own := self.settings.text("id"):
            check_name(own, self.settings["id"].key)
            return own
        suffix = ":udp" if self.port.protocol == "udp" else ""
        made = f"{self.rules.hostname}:{self.container.name}:{self.port.private}{suffix}"
        check_name(made, "its id, made of host, container and port,")
        return made

    def _number(self, port: int) -> int:
        if not 0 < port < 65536 and not self.listed.portless:
            raise Rejection(f"port {port} is out of range")
        return port
