"""Failback: the way back to the first address of the URI, the Consul agent of this host."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from registrator.backend import Unavailable

from .api import Api
from .settings import Endpoint

EVERY = 10.0
"""Seconds between two looks at home."""

WELL_FOR = (120.0, 300.0)
"""Seconds for which home must have been well. Drawn anew for each move, so that hosts that moved
together do not return together."""


class Home:
    """Tells when to go home after a move."""

    def __init__(self, connect: Callable[[Endpoint], Api]) -> None:
        self._connect = connect
        self._home: Endpoint | None = None
        self._look: Future[bool] | None = None
        self._looked = self._well_for = 0.0
        self._well_since: float | None = None

    def moved(self, current: Endpoint, home: Endpoint) -> None:
        """Note that `current` is in use now."""
        self._home = None if current == home else home
        self._look = self._well_since = None
        self._well_for = random.uniform(*WELL_FOR)

    def calls(self, node_id: Callable[[], str], pool: ThreadPoolExecutor) -> bool:
        """Whether home has been well for long enough. Starts a look at it if one is due.

        `node_id` asks the agent in use. This does not wait for the look.
        """
        now = time.monotonic()
        if self._home is None:
            return False
        if self._look is not None and self._look.done():
            self._well_since = (self._well_since or now) if self._look.result() else None
            self._look = None
        if self._look is None and now - self._looked >= EVERY:
            self._looked = now
            try:
                self._look = pool.submit(self._is_well, self._home, node_id())
            except Unavailable:
                self._well_since = None
        return self._well_since is not None and now - self._well_since >= self._well_for

    def _is_well(self, home: Endpoint, in_use: str) -> bool:
        """Whether home serves, and is not the agent in use at another address."""
        api = self._connect(home)
        try:
            return bool(api.status.leader()) and api.node_id() != in_use
        except Unavailable:
            return False
        finally:
            api.http.close()
