"""The services of one port: the one by its name, and one more for each of its aliases."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from sys import intern
from typing import NamedTuple

from registrator.desired.metadata import Setting, Settings, split_tags
from registrator.desired.untrusted import MAX_ALIASES, Rejection, check_name, shown
from registrator.model import LeftOut, Port, Reason, Service


class Group(NamedTuple):
    """The services of one port, and the key that sets its id."""

    id_key: str
    services: tuple[Service, ...]


def aliases(service: Service, settings: Settings, suffix: str) -> Iterator[Service]:
    """The same service under each name of ``SERVICE_ALIASES``. Raises `Rejection`.

    `suffix` follows each name. Another service by the same name would be one instance too many.
    """
    setting = settings.get("aliases", Setting())
    names = dict.fromkeys(name + suffix for name in split_tags(setting.value))
    names.pop(service.name, None)
    if len(names) > MAX_ALIASES:
        text = f"{shown(setting.key)} has {len(names)} names, more than {MAX_ALIASES}"
        raise Rejection(text)
    for name in names:
        check_name(name, setting.key)
        alias_id = f"{service.id}:alias:{name}"
        check_name(alias_id, f"the id that {shown(setting.key)} makes")
        yield replace(service, id=alias_id, name=intern(name))


def distinct(groups: Iterable[Group]) -> tuple[tuple[Service, ...], list[LeftOut]]:
    """The services by port, each id once, and the ports whose id a lower port has.

    An alias whose service is left out is left out with it.
    """
    found: dict[str, Service] = {}
    left_out = []
    for key, services in sorted(groups, key=lambda group: _port(group.services[0])):
        for service in services:
            if service.id not in found:
                found[service.id] = service
                continue
            text = f"{shown(key)} is also the id of another port; set SERVICE_<port>_ID"
            left_out.append(LeftOut(Port(*_port(service)), Reason.SAME_ID, text))
            break
    return tuple(found.values()), left_out


def _port(service: Service) -> tuple[int, str]:
    return service.private_port, service.protocol
