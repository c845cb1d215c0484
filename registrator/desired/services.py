"""Derives the services of one container from its ports and metadata. Pure functions.

The rules are those of gliderlabs/registrator, made deterministic. ``docs/services.md`` states them
for users. A port that breaks a rule is left out, with the reason, and the others go on.
"""

import re
from dataclasses import dataclass
from sys import intern

from registrator.desired.addresses import address_of
from registrator.desired.metadata import (
    Setting,
    Settings,
    attributes_of,
    check_size,
    read_metadata,
    tags_of,
)
from registrator.desired.ports import Ports, eligible
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
    ports, unpublished = eligible(container, rules, peer)
    left_out = [LeftOut(port, Reason.NOT_PUBLISHED) for port in unpublished[:MAX_SERVICES]]
    if container.unreadable:
        left_out.append(LeftOut(None, Reason.UNREADABLE, container.unreadable))
    elif not container.ports:
        left_out.append(LeftOut(None, Reason.NO_PORTS))
    metadata = read_metadata(container)
    found: dict[str, Service] = {}
    tried = size = 0
    for index, port in enumerate(ports):
        settings = metadata.settings(port.private)
        shared_name = len(ports) > 1 and not metadata.has_own(port.private, "name")
        made = _Maker(container, port, settings, shared_name, rules, peer).made()
        if isinstance(made, LeftOut) and made.reason in ON_PURPOSE:
            left_out.append(made)
            continue
        tried, size = tried + 1, size + (_size(made) if isinstance(made, Service) else 0)
        if tried > MAX_SERVICES or size > MAX_RECORDS:
            left_out.append(_too_many(ports[index:]))
            break
        if isinstance(made, LeftOut):
            left_out.append(made)
            continue
        lower, higher = sorted((found.get(made.id, made), made), key=_by_port)
        found[made.id] = lower
        if lower is not higher:
            key = settings.get("id", Setting("", "its id")).key
            text = f"{shown(key)} is also the id of another port; set SERVICE_<port>_ID"
            other = Port(higher.private_port, higher.protocol)
            left_out.append(LeftOut(other, Reason.SAME_ID, text))
    return Offer(tuple(sorted(found.values(), key=_by_port)), tuple(left_out))


def _by_port(service: Service) -> tuple[int, str]:
    return service.private_port, service.protocol


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
    """Makes the service of one port. All methods but `made` raise `Rejection`.

    With `shared_name` the port is appended to the name, as other ports have the same.
    """

    container: Container
    port: Port
    settings: Settings
    shared_name: bool
    rules: Rules
    peer: Container | None

    def made(self) -> Service | LeftOut:
        """The service of this port, or why it has none."""
        try:
            return self.service()
        except Rejection as why:
            return LeftOut(self.port, why.reason, str(why))

    def service(self) -> Service:
        """The service of this port."""
        container, port = self.container, self.port
        self._check_wanted()
        name = self._name()
        check_size(self.settings)
        return Service(
            id=self._id(),
            name=intern(name),
            address=intern(address_of(container, port, self.settings, self.rules, self.peer)),
            port=_number(port.host_port or port.private),
            private_port=_number(port.private),
            protocol=port.protocol,
            tags=self._tags(),
            attrs=attributes_of(self.settings),
            container_id=container.id,
            container_name=container.name,
            container_hostname=container.hostname,
            former_addresses=tuple(filter(None, container.networks.values())),
        )

    def _check_wanted(self) -> None:
        """Reject a port that the operator or the container leaves out on purpose."""
        ignore = self.settings.get("ignore", Setting())
        if ignore.value:
            raise Rejection(f"{shown(ignore.key)} is set", Reason.IGNORED)
        if self.rules.explicit and not self.settings.text("name"):
            raise Rejection("", Reason.NOT_NAMED)

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
        if self.shared_name:
            name += f"-{self.port.private}"
        check_name(name, key)
        return name

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


def _number(port: int) -> int:
    if not 0 < port < 65536:
        raise Rejection(f"port {port} is out of range")
    return port
