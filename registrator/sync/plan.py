"""What to write so that a registry holds what it should: the difference, and nothing else.

| desired | the registry has                              | then                            |
| ------- | --------------------------------------------- | ------------------------------- |
| yes     | nothing                                       | register                        |
| yes     | ours, same content, held by this process      | keep                            |
| yes     | ours, same content, held by another session   | register (takes it over)        |
| yes     | ours, other content                           | register                        |
| yes     | unmarked, at an address of this host, or at   | register (adopts it)            |
|         | the container's own, as the original's may be |                                 |
| yes     | unmarked, at another address                  | conflict: warn, leave           |
| yes     | another owner's                               | conflict: warn, leave           |
| no      | ours                                          | deregister (dangling)           |
| no      | unmarked, id of the original's form with our  | deregister (the original's,     |
|         | hostname, at an address of this host          | dangling)                       |
| no      | anything else                                 | leave                           |

Dangling entries that this process never wanted go only with cleanup switched on.
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
    """The plan that turns `actual` into `desired`; both are by key.

    `dangling` says whether an entry that is not desired is ours to remove (see `is_ours`).
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
    """Whether an entry is this host's: by its mark, else by the original's form of id.

    gliderlabs/registrator names its services ``host:container:port`` with ``:udp`` for UDP and
    leaves no other trace; the address tells two machines of one name apart.
    """
    if found.mark is not Mark.NONE:
        return found.mark is Mark.OURS
    original = rf"{re.escape(hostname)}:[a-zA-Z0-9][a-zA-Z0-9_.-]*:\d+(:udp)?"
    return found.address in addresses and re.fullmatch(original, found.id) is not None


def by_key(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[tuple[Entry, Entry]]]:
    """Give every entry its key; returns them by key, and the pairs (loser, winner) of clashes.

    Where two claim one key, the one that has an alternate key takes that; else the later one of
    `entries` has it.
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
