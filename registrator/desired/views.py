"""Makes the snapshot of a registry with a filter: the services of containers that it admits."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

from registrator.model import Service, Snapshot

# For each container, in the order of their starts: the filters that exclude it, and its services.
Parts = Sequence[tuple[Set[str], Sequence[Service]]]


def by_id(services: Sequence[Service], lost: dict[int, Service]) -> dict[str, Service]:
    """The services by id. If several have one id, the last one has it, and its place in the order.

    The others are added to `lost`: by their identity, with the service that has the id.
    """
    found = {service.id: service for service in services}
    if len(found) < len(services):
        for service in services:
            found.pop(service.id)
            found[service.id] = service
        lost |= {id(each): found[each.id] for each in services if found[each.id] is not each}
    return found


def view(
    whole: Snapshot, text: str, parts: Parts, lost: dict[int, Service], before: Snapshot | None
) -> Snapshot:
    """The snapshot for the registries with this filter. It is the one `before` if nothing changed.

    A container that the filter excludes takes no id from another one.
    """
    services = by_id(_offered(part for part in parts if text not in part[0]), lost)
    hidden = _offered(part for part in parts if text in part[0])
    excluded = {service.id: service for service in hidden if service.id not in services}
    made = replace(whole, services=services, excluded=excluded)
    return before if before is not None and made == before else made


def _offered(parts: Iterable[tuple[Set[str], Sequence[Service]]]) -> list[Service]:
    return [service for _, services in parts for service in services]
