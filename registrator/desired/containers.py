"""Keeps the inspected containers, and derives their services and the snapshot.

`inventory` decides which container is inspected when, and this module keeps the answers.

If a container shares the network of another (``--network container:…``), its services follow from
both, and are derived anew when either changes.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from operator import attrgetter

from registrator.desired.latest_health import with_latest_health
from registrator.desired.left_out import lines
from registrator.desired.new_keys import warning
from registrator.desired.rules import Rules
from registrator.desired.services import services
from registrator.desired.untrusted import shown
from registrator.desired.views import by_id, view
from registrator.desired.withdrawn import Kill, Withdrawn
from registrator.model import (
    Container,
    ContainerHealth,
    LeftOut,
    Offer,
    Port,
    Reason,
    Service,
    Snapshot,
)
from registrator.status.facts import of_container

log = logging.getLogger("registrator.containers")

_START = attrgetter("container.started_at", "container.id")

# One empty set for all containers: thousands of empty ones take memory.
NO_FILTERS: frozenset[str] = frozenset()
NOTHING = Offer()
STOPS = Offer(left_out=(LeftOut(None, Reason.WITHDRAWN),))


@dataclass(slots=True)
class _Known:
    """A container, the id of the one whose network it shares (or ""), and what it offers.

    With `stops` it is being stopped, and offers nothing. `excluded_by` are the texts of those
    filters of registries that exclude it.
    """

    container: Container
    peer_id: str
    stops: bool
    offer: Offer = NOTHING
    excluded_by: frozenset[str] = NO_FILTERS

    def derive(self, rules: Rules, peer: Container | None) -> None:
        """Find out what it offers, and to whom. `peer` is the one whose network it shares."""
        offer = STOPS if self.stops else services(self.container, rules, peer)
        self.offer = replace(offer, container=self.container)
        hidden = (each.text for each in rules.filters if not each.admits(self.container, peer))
        self.excluded_by = frozenset(hidden) or NO_FILTERS


class Containers:
    """The running containers, as far as they were inspected. For one thread."""

    def __init__(
        self,
        rules: Rules,
        addresses: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._addresses = addresses
        self._clock = clock
        self._withdrawn = Withdrawn()
        self._known: dict[str, _Known] = {}
        self._changed: set[str] = set()  # their services are to be derived anew
        self._starting = True  # until all that the first listing names is known
        self.offers: dict[str, Offer] = {}  # by container id, as in the last snapshot
        self._views: Mapping[str, Snapshot] = {}  # those of the last snapshot

    @property
    def ids(self) -> Set[str]:
        """The ids of the known containers."""
        return self._known.keys()

    @property
    def stopping(self) -> Set[str]:
        """The ids of the known containers that are being stopped."""
        return {key for key, known in self._known.items() if known.stops}

    def has_health(self, container_id: str, health: ContainerHealth | None) -> bool:
        """Whether a container is known to have this health. Any thread may ask."""
        known = self._known.get(container_id)
        return known is not None and known.container.health is health

    def get(self, container_id: str) -> Container | None:
        """The facts of a container, if it is known."""
        known = self._known.get(container_id)
        return known.container if known else None

    def use_rules(self, rules: Rules, addresses: frozenset[str]) -> None:
        """Make all services anew, by other rules."""
        self._rules, self._addresses = rules, addresses
        self._changed |= self._known.keys()

    def put(self, container_id: str, container: Container | None) -> float:
        """Take in what a container is now. None means that it does not run.

        Returns when to look at it again without a hint.
        """
        known = self._known.get(container_id)
        if known is not None and container is not None:
            container = with_latest_health(container, known.container)
        if container is None:
            self._withdrawn.forget(container_id)
            if known is not None:
                log.debug(
                    "container %s: no services are desired any more", container_id[:12],
                    extra=of_container(known.container),
                )  # fmt: skip
                del self._known[container_id]
                self._changed.add(container_id)
            return math.inf
        until = self._withdrawn.until(container)
        stops = until > self._clock()
        if not stops:
            self._withdrawn.forget(container_id)
            if until:
                log.warning(
                    "container %s (%s) was told to stop and still runs: its services return",
                    shown(container.name), container_id[:12], extra=of_container(container),
                )  # fmt: skip
        if known is None or known.container != container or known.stops != stops:
            self._known[container_id] = _Known(container, _peer_id(container), stops)
            self._changed.add(container_id)
        return until if stops else math.inf

    def told(self, container_id: str, kills: Iterable[Kill]) -> float:
        """Take in the signals that were sent to a container. Returns when to look at it again.

        It is looked at without an inspection if it is known, and otherwise at once.
        """
        if not self._rules.on_stop:
            return math.inf
        for kill in kills:
            self._withdrawn.note(container_id, kill)
        known = self._known.get(container_id)
        return self.put(container_id, known.container) if known else 0

    def is_told_to_stop(self, container: Container) -> bool:
        """Whether somebody told this run of a container to stop."""
        return self._withdrawn.until(container) > 0

    def started_after(self, container_id: str, ended: float) -> bool:
        """Whether what is known is newer than an end, as when a stream repeats old events."""
        known = self._known.get(container_id)
        return known is not None and known.container.started_at > ended

    def derive(self, dirty: Set[str]) -> bool:
        """Derive the services of what changed, and say whether anything did.

        A container that shares the network of a `dirty` unknown one waits until that is inspected.
        """
        changed = self._changed
        if awaited := dirty - self._known.keys():
            changed = changed - {k for k, known in self._known.items() if known.peer_id in awaited}
        self._changed = self._changed - changed
        if changed:
            for container_id, known in self._known.items():
                if container_id in changed or known.peer_id in changed:
                    peer = self._known.get(known.peer_id)
                    known.derive(self._rules, peer.container if peer else None)
        return bool(changed)

    def snapshot(
        self, received: tuple[float, ...] = (), *, complete: bool, settled: bool
    ) -> Snapshot:
        """All services, and with them the `offers`. Logs each port that is left out, once.

        If several services have one id, that of the container which started last is registered.
        """
        # Each run decides a tie in the same way.
        by_start = sorted(self._known.values(), key=_START)
        parts = [(known.excluded_by, known.offer.services) for known in by_start]
        filters = self._rules.filters
        lost: dict[int, Service] = {}
        everywhere = [service for _, offered in parts for service in offered]
        # If each registry has a filter, none takes all of them, and nobody loses an id here.
        found = by_id(everywhere, {} if filters and all(filters) else lost)
        addresses = self._addresses.union(service.address for service in found.values())
        whole = Snapshot(found, addresses, complete, settled, self._addresses, received=received)
        self._views = {
            each.text: view(whole, each.text, parts, lost, self._views.get(each.text))
            for each in filter(None, filters)
        }
        offers = {key: known.offer for key, known in self._known.items()}
        if lost:
            offers = {key: _without_lost_ids(offer, lost) for key, offer in offers.items()}
        before, self.offers = self.offers, offers
        for container_id, offer in offers.items():
            said = before.get(container_id)
            if offer is not said:
                self._log(self._known[container_id].container, offer, said)
        self._starting = self._starting and not complete
        return replace(whole, views=self._views)

    def _log(self, container: Container, offer: Offer, said: Offer | None) -> None:
        """Log what a container offers now: ports left out anew, and new keys at the start."""
        if self._starting and said is None and (text := warning(container, offer)):
            log.warning("%s", text, extra=of_container(container))
        log.debug(
            "container %s: services desired: %d, ports left out: %d",
            container.id[:12], len(offer.services), len(offer.left_out),
            extra=of_container(container),
        )  # fmt: skip
        old = frozenset(said.left_out if said else ())
        for line in lines(container, (each for each in offer.left_out if each not in old)):
            log.log(line.level, "%s", line.text, extra=line.facts)


def _without_lost_ids(offer: Offer, winners: Mapping[int, Service]) -> Offer:
    """The offer without the services whose id another container has."""
    lost = [service for service in offer.services if id(service) in winners]
    if not lost:
        return offer
    left_out = []
    for service in lost:
        winner = shown(winners[id(service)].container_name)
        same = f"container {winner} has the same id '{shown(service.id)}'"
        text = f"{same}, and keeps it, as it started later"
        port = Port(service.private_port, service.protocol)
        left_out.append(LeftOut(port, Reason.SAME_ID, text))
    kept = tuple(service for service in offer.services if service not in lost)
    return Offer(kept, (*offer.left_out, *left_out), offer.container)


def _peer_id(container: Container) -> str:
    """The container whose network this one shares, or an empty text."""
    mode, _, peer = container.network_mode.partition(":")
    return peer if mode == "container" else ""
