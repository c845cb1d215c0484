"""What is known of this host's containers, and the services that follow from it.

A container that shares another's network (``--network container:…``) has its services derived
from both, and anew when either changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass

from registrator.desired.services import Offer, Rules, services
from registrator.model import Container, Service, Snapshot

log = logging.getLogger("registrator.stock")


@dataclass(slots=True)
class _Known:
    """A container, the one whose network it shares (or ""), and what became of it."""

    container: Container
    peer_id: str
    offer: Offer


class Stock:
    """The containers that run, as far as they were looked at. For one thread."""

    def __init__(self, rules: Rules, addresses: frozenset[str]) -> None:
        self._rules = rules
        self._addresses = addresses
        self._known: dict[str, _Known] = {}
        self._news: set[str] = set()  # those whose services are to be derived anew
        self._claims: set[tuple[str, str, str]] = set()

    @property
    def ids(self) -> Set[str]:
        """Of the containers that are known."""
        return self._known.keys()

    def follow(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make all services anew, by other rules."""
        self._rules, self._addresses = rules, addresses
        self._news |= self._known.keys()

    def put(self, container_id: str, container: Container | None) -> None:
        """Take in what a container is now; None where it does not run."""
        known = self._known.get(container_id)
        if container is None:
            if known is not None:
                del self._known[container_id]
                self._news.add(container_id)
        elif known is None or known.container != container:
            said = known.offer._replace(services=()) if known else Offer()
            self._known[container_id] = _Known(container, _peer_id(container), said)
            self._news.add(container_id)

    def started_after(self, container_id: str, ended: float) -> bool:
        """Whether what is known is newer than an end, as when a stream repeats old events."""
        known = self._known.get(container_id)
        return known is not None and known.container.started_at > ended

    def derive(self, unseen: Set[str]) -> bool:
        """Derive the services of what changed; returns whether anything did.

        Whoever shares the network of an `unseen` container waits until that was looked at.
        """
        awaited = unseen - self._known.keys()
        waiting = {key for key, known in self._known.items() if known.peer_id in awaited}
        changed = self._news - waiting
        self._news -= changed
        if changed:
            for container_id, known in self._known.items():
                if container_id in changed or known.peer_id in changed:
                    self._derive_one(known)
        return bool(changed)

    def _derive_one(self, known: _Known) -> None:
        peer = self._known.get(known.peer_id)
        offer = services(known.container, self._rules, peer.container if peer else None)
        for warning in offer.warnings:
            if warning not in known.offer.warnings:
                log.warning("%s", warning)
        if offer.note and offer.note != known.offer.note:
            log.debug("%s", offer.note)
        known.offer = offer

    def snapshot(self, *, complete: bool, settled: bool) -> Snapshot:
        """All services; of those with one id, that of the container that started last."""
        found: dict[str, Service] = {}
        claims: set[tuple[str, str, str]] = set()
        for known in sorted(self._known.values(), key=lambda known: known.container.started_at):
            for service in known.offer.services:
                earlier = found.pop(service.id, None)
                if earlier is not None:
                    claims.add((service.id, earlier.container_name, service.container_name))
                found[service.id] = service
        self._warn_of(claims - self._claims)
        self._claims = claims
        addresses = self._addresses.union(service.address for service in found.values())
        return Snapshot(found, addresses, complete, settled)

    def _warn_of(self, claims: Iterable[tuple[str, str, str]]) -> None:
        for service_id, loser, winner in sorted(claims):
            log.warning(
                "service id %s is claimed by containers %s and %s; %s has it, as it started last",
                service_id, loser, winner, winner,
            )  # fmt: skip


def _peer_id(container: Container) -> str:
    """The container whose network this one shares, or an empty text."""
    mode, _, peer = container.network_mode.partition(":")
    return peer if mode == "container" else ""
