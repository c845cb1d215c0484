"""The difference between what a registry should hold and what it holds.

"Ours" means that the entry names our engine's id, and this host. An entry that names our engine's
id and another host is a twin. It counts as ours only at an address of this host itself, which then
has a new name. An entry that names our engine's id and no host counts as ours if its id starts with
our hostname, or if it is at an address of this host. Otherwise it counts as unmarked. "Unmarked"
means that it names no owner, as the entries of gliderlabs/registrator do.

| desired | the registry has                              | then                              |
| ------- | --------------------------------------------- | --------------------------------- |
| yes     | nothing                                       | register                          |
| yes     | ours, same content, held by this process      | keep                              |
| yes     | ours, same content, held by another session   | register (takes it over)          |
| yes     | ours, other content                           | register                          |
| yes     | unmarked, the id that the original gives this | register (adopts it)              |
|         | very service, at an address of this host or   |                                   |
|         | of the container                              |                                   |
| yes     | unmarked, all that the original would have    | register (adopts it)              |
|         | written for this service                      |                                   |
| yes     | unmarked, anything else                       | conflict: warn, leave             |
| yes     | a twin's, another owner's                     | conflict: warn, leave             |
| no      | ours                                          | deregister (dangling)             |
| no      | unmarked, id of the original's form with our  | deregister (the original's,       |
|         | hostname, at an address of this host          | dangling)                         |
| no      | anything else                                 | leave                             |

Dangling entries that this process never wanted are removed only with ``-cleanup``.

A registry that cannot tell the health of a service has no unhealthy ones (``-health``). A starting
one is desired if its entry stands. Otherwise it waits. See `sync.by_health`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from registrator.backend import Rejected
from registrator.model import Actual, Entry, Mark, Plan, Problem, Reason, Service, Snapshot


@dataclass(frozen=True, slots=True)
class Here:
    """This host: its name, the addresses at which it registers services, and its own addresses.

    `own` has no container's address: other hosts give their containers the same ones.
    """

    hostname: str
    addresses: frozenset[str]
    own: frozenset[str] = frozenset()

    def mark(self, found: Actual) -> Mark:
        """Whose an entry is, as OURS, TWIN, OTHERS or NONE."""
        if found.mark is Mark.TWIN and found.address in self.own:
            return Mark.OURS
        if found.mark is Mark.UNTOLD:
            named = found.id.startswith(f"{self.hostname}:")
            return Mark.OURS if named or found.address in self.own else Mark.NONE
        return found.mark

    def owns(self, found: Actual) -> bool:
        """Whether we may remove an entry that no service stands behind."""
        mark = self.mark(found)
        if mark is not Mark.NONE:
            return mark is Mark.OURS
        return found.address in self.addresses and self._is_originals(found.id)

    def claims(self, found: Actual, service: Service) -> bool:
        """Whether an entry of our engine, which names no host, is that of this service.

        An id of the user's own at a container's address is the same on several hosts. The host that
        runs such a service claims the entry, and names itself with its next write.
        """
        here = found.mark is Mark.UNTOLD and found.address == service.address
        return here and _agrees(found, service)

    def adopts(self, found: Actual, service: Service) -> bool:
        """Whether an unmarked entry is what the original wrote for this service."""
        if found.address not in {*self.addresses, service.address, *service.former_addresses}:
            return False
        if self._is_originals(service.id) and found.id == service.id:
            return True
        return bool(found.facts) and _agrees(found, service)

    def _is_originals(self, service_id: str) -> bool:
        """Whether gliderlabs/registrator makes such an id on this host.

        It calls services ``host:container:port``, with ``:udp`` for UDP. It leaves no other trace.
        """
        form = rf"{re.escape(self.hostname)}:[a-zA-Z0-9][a-zA-Z0-9_.-]*:\d+(:udp)?"
        return re.fullmatch(form, service_id) is not None


def _agrees(found: Actual, service: Service) -> bool:
    """Whether the facts that the registry tells are those of the service, but for the address."""
    return all(
        _same(value, getattr(service, name))
        for name, value in found.facts.items()
        if name != "address"
    )


def _same(told: object, wanted: object) -> bool:
    """Compare a fact. The original writes tags in an order of its own."""
    if isinstance(told, list | tuple) and isinstance(wanted, tuple):
        return sorted(map(str, told)) == sorted(wanted)
    return told == wanted


def diff(
    desired: Mapping[str, Entry],
    actual: Mapping[str, Actual],
    here: Here,
    *,
    dangling: Callable[[str], bool],
) -> Plan:
    """Return the plan that turns `actual` into `desired`. Both are by key.

    `dangling` says whether the entries that are not desired, and are ours, are to be removed.
    """
    register: list[Entry] = []
    conflicts: dict[str, str] = {}
    for key, entry in desired.items():
        found = actual.get(key)
        if found is None:
            register.append(entry)
        elif (
            found.mark is Mark.OURS
            and found.held
            and found.content == entry.content
            and entry.status in ("", found.status)
        ):
            continue  # This is by far the usual case, and the quickest check.
        elif why := _conflict(found, entry.service, here):
            conflicts[key] = why
        elif _differs(found, entry):
            register.append(entry)
    deregister = tuple(
        key
        for key, found in actual.items()
        if key not in desired and dangling(key) and here.owns(found)
    )
    return Plan(tuple(register), deregister, conflicts)


def _differs(found: Actual, entry: Entry) -> bool:
    """Whether our entry has to be written again: its mark, lease, content or status is not ours.

    A twin's has another content or lease. If it has neither, the mark cannot become another one.
    """
    if found.mark is Mark.NONE or not found.held or found.content != entry.content:
        return True
    return entry.status not in ("", found.status)


def _conflict(found: Actual, service: Service, here: Here) -> str:
    """Why an entry keeps a service out of its place. Empty if it does not."""
    mark = here.mark(found)
    if mark is Mark.OURS or (mark is Mark.NONE and here.adopts(found, service)):
        return ""
    return replace(found, mark=mark).holder


def entries(
    snapshot: Snapshot, before: Mapping[str, Entry], make: Callable[[Service], Entry]
) -> tuple[dict[str, Entry], dict[str, Problem]]:
    """The entry of each service by its id, made for new services only, or why it has none."""
    found: dict[str, Entry] = {}
    problems: dict[str, Problem] = {}
    for service_id, service in snapshot.services.items():
        entry = before.get(service_id)
        if entry is None or entry.service is not service:
            try:
                entry = make(service)
            except Rejected as reason:
                problems[service_id] = Problem(Reason.REFUSED, str(reason))
                continue
        found[service_id] = entry
    return found, problems


def written(entry: Entry) -> Actual:
    """An entry as it stands once it is written."""
    service = entry.service
    return Actual(entry.content, id=service.id, address=service.address, status=entry.status)


def by_key(entries: Iterable[Entry]) -> tuple[Mapping[str, Entry], list[tuple[Entry, Entry]]]:
    """Give every entry its key. Returns the entries by key, and the clashes as (loser, winner).

    If two entries claim one key and one of them has an alternate key, that one takes the
    alternate. Otherwise the later one of `entries` gets the key.
    """
    entries = tuple(entries)
    chosen = {entry.key: entry for entry in entries}
    if len(chosen) == len(entries):
        return chosen, []
    chosen = {}
    clashes: list[tuple[Entry, Entry]] = []
    # Those with an alternate key come last, since they yield.
    for entry in sorted(entries, key=lambda entry: entry.alternate is not None):
        key = entry.key
        if key in chosen and entry.alternate is not None:
            key = entry.alternate
        if key in chosen:
            clashes.append((chosen[key], entry))
        chosen[key] = entry if key == entry.key else replace(entry, key=key)
    return chosen, clashes


def looked(
    before: Mapping[str, Actual], found: Mapping[str, Actual], desired: Mapping[str, Entry]
) -> dict[str, Actual]:
    """The entries as found, with the marks that they have by what this process held `before`.

    An entry that has not changed is the object of the last look, and a text that is as `desired`
    is that one. New ones among a listing's garbage would keep the garbage's memory in use.
    """
    return {key: _looked(before.get(key), each, desired.get(key)) for key, each in found.items()}


def _looked(before: Actual | None, found: Actual, desired: Entry | None) -> Actual:
    now = _still_ours(before, found) if before else found
    if before is not None and now == before:
        now = before
    if desired is None or now.content is desired.content or now.content != desired.content:
        return now
    return replace(now, content=desired.content)


def _still_ours(before: Actual, found: Actual) -> Actual:
    if before.mark is not Mark.OURS:
        return found
    if found.mark is Mark.NONE:
        # Somebody wrote another value over our entry, and our mark went with that.
        return replace(found, mark=Mark.OURS, held=False)
    engines = found.mark in (Mark.TWIN, Mark.UNTOLD)
    if engines and found.held and found.content == before.content:
        # It is as it was. The registry may have no place for the host in it.
        return replace(found, mark=Mark.OURS)
    return found
