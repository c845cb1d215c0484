"""Finds the services behind the entries that are to go, for the log lines about them."""

from collections.abc import Mapping

from registrator.backend import Backend
from registrator.model import Actual, Entry, Plan, Service, Snapshot
from registrator.sync.plan import entries


def gone(
    plan: Plan,
    actual: Mapping[str, Actual],
    before: Snapshot | None,
    now: Mapping[str, Entry],
    backend: Backend,
) -> dict[str, Service | str]:
    """The service behind each entry that a plan removes, by key.

    `before` is the snapshot that was realised last, and `now` has the desired entries by service
    id. If nothing is known of an entry but what the registry tells, this gives the id of its
    service, which may be empty.
    """
    known = before.services if before is not None else {}
    found: dict[str, Service | str] = {}
    for key in plan.deregister:
        told = actual[key].id
        found[key] = known.get(told, told)
    if known and any(isinstance(each, str) for each in found.values()):
        # SkyDNS has a host name in place of the id.
        left = {k: each for k, each in known.items() if k not in now or now[k].service is not each}
        made, _ = entries(Snapshot(left), {}, backend.entry)
        found |= {entry.key: entry.service for entry in made.values() if entry.key in found}
    return found
