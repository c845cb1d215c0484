"""The containers that run, and the services that follow from them.

If a container shares the network of another (``--network container:…``), its services follow from
both, and are derived anew when either changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from registrator.desired import left_out
from registrator.desired.services import Rules, services
from registrator.desired.untrusted import shown
from registrator.model import Container, LeftOut, Offer, Port, Reason, Service, Snapshot

log = logging.getLogger("registrator.containers")


@dataclass(slots=True)
class _Known:
    """A container, the id of the one whose network it shares (or ""), and what it offers."""

    container: Container
    peer_id: str
    offer: Offer


class Containers:
    """The running containers, as far as they were inspected. For one thread."""

    def __init__(self, rules: Rules, addresses: frozenset[str]) -> None:
        self._rules = rules
        self._addresses = addresses
        self._known: dict[str, _Known] = {}
        self._changed: set[str] = set()  # their services are to be derived anew
        self._lost: dict[str, dict[str, LeftOut]] = {}  # by container and id: others have the id

    @property
    def ids(self) -> Set[str]:
        """The ids of the known containers."""
        return self._known.keys()

    @property
    def offers(self) -> Mapping[str, Offer]:
        """What each container offers by the last snapshot, and what is left out."""
        found = {container_id: known.offer for container_id, known in self._known.items()}
        for container_id, lost in self._lost.items():
            offer = found[container_id]
            kept = tuple(service for service in offer.services if service.id not in lost)
            found[container_id] = Offer(kept, (*offer.left_out, *lost.values()))
        return found

    def use_rules(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make all services anew, by other rules."""
        self._rules, self._addresses = rules, addresses
        self._changed |= self._known.keys()

    def put(self, container_id: str, container: Container | None) -> None:
        """Take in what a container is now. None means that it does not run."""
        known = self._known.get(container_id)
        if container is None:
            if known is not None:
                del self._known[container_id]
                self._changed.add(container_id)
        elif known is None or known.container != container:
            offer = Offer(left_out=known.offer.left_out if known else ())
            self._known[container_id] = _Known(container, _peer_id(container), offer)
            self._changed.add(container_id)

    def started_after(self, container_id: str, ended: float) -> bool:
        """Whether what is known is newer than an end, as when a stream repeats old events."""
        known = self._known.get(container_id)
        return known is not None and known.container.started_at > ended

    def derive(self, dirty: Set[str]) -> bool:
        """Derive the services of what changed, and say whether anything did.

        A container that shares the network of a `dirty` unknown one waits until that is inspected.
        """
        awaited = dirty - self._known.keys()
        waiting = {key for key, known in self._known.items() if known.peer_id in awaited}
        changed = self._changed - waiting
        self._changed -= changed
        if changed:
            for container_id, known in self._known.items():
                if container_id in changed or known.peer_id in changed:
                    self._derive_one(known)
        return bool(changed)

    def _derive_one(self, known: _Known) -> None:
        peer = self._known.get(known.peer_id)
        before = known.offer.left_out
        known.offer = services(known.container, self._rules, peer.container if peer else None)
        _log_new(known.container, known.offer.left_out, before)

    def snapshot(self, *, complete: bool, settled: bool) -> Snapshot:
        """All services. If several have one id, the container that started last has it."""
        found: dict[str, Service] = {}
        before, self._lost = self._lost, {}
        for known in sorted(self._known.values(), key=lambda known: known.container.started_at):
            for service in known.offer.services:
                earlier = found.pop(service.id, None)
                if earlier is not None:
                    self._lose(earlier, service)
                found[service.id] = service
        for container_id, lost in self._lost.items():
            said = before.get(container_id, {}).values()
            _log_new(self._known[container_id].container, lost.values(), said)
        addresses = self._addresses.union(service.address for service in found.values())
        return Snapshot(found, addresses, complete, settled)

    def _lose(self, loser: Service, winner: Service) -> None:
        text = (
            f"container {shown(winner.container_name)} has the id {winner.id}, as it started later"
        )
        port = Port(loser.private_port, loser.protocol)
        self._lost.setdefault(loser.container_id, {})[loser.id] = LeftOut(
            port, Reason.SAME_ID, text
        )


def _log_new(container: Container, now: Iterable[LeftOut], before: Iterable[LeftOut]) -> None:
    said = frozenset(before)
    news = (each for each in now if each not in said)
    for level, text in left_out.lines(container, news):
        log.log(level, "%s", text)


def _peer_id(container: Container) -> str:
    """The container whose network this one shares, or an empty text."""
    mode, _, peer = container.network_mode.partition(":")
    return peer if mode == "container" else ""
