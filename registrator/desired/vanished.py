"""Doubts a listing in which all known containers are missing.

An engine with a wrong socket or an empty data folder answers with an empty listing. To believe it
at once would remove every entry of this host.
"""

import logging
import math
from collections.abc import Set

log = logging.getLogger("registrator.inventory")

# With fewer containers it is not rare that all end while nobody listens.
MANY = 3

# Seconds until the engine is listed again before it is believed.
LOOK_AGAIN = 5.0


class Doubt:
    """Whether the last listing is in doubt."""

    def __init__(self) -> None:
        self._until = math.inf

    def until(self, known: Set[str], listed: Set[str], now: float) -> float:
        """When to list again before what is missing counts as gone. Infinite without a doubt.

        `known` are the containers that run as far as events told.
        """
        if len(known) < MANY or known & listed or now >= self._until:
            self._until = math.inf
        elif self._until == math.inf:
            self._until = now + LOOK_AGAIN
            log.error(
                "Docker engine: none of the %d known containers is in its listing, and no event "
                "told of their end: listing again in %.0f s before their services are removed",
                len(known), LOOK_AGAIN,
            )  # fmt: skip
        return self._until
