"""Says what to write so that a registry holds what it should: the difference, and nothing else.

| desired | the registry holds                            | the plan                        |
| ------- | --------------------------------------------- | ------------------------------- |
| yes     | nothing                                       | register                        |
| yes     | our entry, same content, kept by this process | keep                            |
| yes     | our entry, same content, of another session   | register (takes it over)        |
| yes     | our entry, other content                      | register                        |
| yes     | an unmarked entry at an address of this host  | register (adopts it)            |
|         | or of the container, like the original's      |                                 |
| yes     | an unmarked entry at another address          | conflict: warn, leave           |
| yes     | another owner's entry                         | conflict: warn, leave           |
| no      | our entry                                     | deregister (it is dangling)     |
| no      | an unmarked entry at an address of this host, | deregister (it is dangling, and |
|         | whose id has the original's form and our name | the original's)                 |
| no      | anything else                                 | leave                           |

If this process never wanted a dangling entry, the plan removes it only with cleanup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from registrator.model import Actual, Entry, Mark, Plan, Service


def diff(
    desired: Mapping[str, Entry],
    actual: Mapping[str, Actual],
    *,
    dangling: Callable[[str, Actual], bool],
    addresses: frozenset[str],
) -> Plan:
    """Return the plan that turns `actual` into `desired`; both are by key.

    `dangling` says whether we may remove an entry that is not desired (see `is_ours`).
    `addresses` are those of this host.
    """
    register: list[Entry] = []
    conflicts: dict[str, str] = {}
    for key, entry in desired.items():
        found = actual.get(key)
        if found is None:
            register.append(entry)
        elif found.mark is Mark.OTHERS:
            conflicts[key] = "another owner holds it"
        elif found.mark is Mark.NONE and found.address not in addresses | _own(entry.service):
            conflicts[key] = f"somebody else registered it with {found.address or 'no address'}"
        elif found.mark is Mark.NONE or not found.held or found.content != entry.content:
            register.append(entry)
    deregister = tuple(
        key for key, found in actual.items() if key not in desired and dangling(key, found)
    )
    return Plan(tuple(register), deregister, conflicts)


def _own(service: Service) -> set[str]:
    return {service.address, *service.former_addresses}


def is_ours(found: Actual, hostname: str, addresses: frozenset[str]) -> bool:
    """Whether an entry belongs to this host, by its mark, or by the form of the original's ids.

    gliderlabs/registrator calls its services ``host:container:port``, with ``:udp`` for UDP. It
    leaves no other trace. The address tells two machines with the same name apart.
    """
    if found.mark is not Mark.NONE:
        return found.mark is Mark.OURS
    original = rf"{re.escape(hostname)}:[a-zA-Z0-9][a-zA-Z0-9_.-]*:\d+(:udp)?"
    return found.address in addresses and re.fullmatch(original, found.id) is not None


def by_key(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[tuple[Entry, Entry]]]:
    """Give every entry its key; returns the entries by key, and the clashes as (loser, winner).

    If two entries claim one key and one of them has an alternate key, that one takes the
    alternate. Otherwise the later one of `entries` gets the key.
    """
    chosen: dict[str, Entry] = {}
    yielding: list[Entry] = []
    clashes: list[tuple[Entry, Entry]] = []
    for entry in entries:
        if entry.alternate is not None:
            yielding.append(entry)
            continue
        if entry.key in chosen:
            clashes.append((chosen[entry.key], entry))
        chosen[entry.key] = entry
    for entry in yielding:
        key = entry.key if entry.key not in chosen else entry.alternate
        assert key is not None
        if key in chosen:
            clashes.append((chosen[key], entry))
        chosen[key] = Entry(key, entry.content, entry.service)
    return chosen, clashes
