"""Our copies at Consul agents that are not in use: finds and removes them.

A registration belongs to the agent that took it, and stays until that agent is told to remove it.
Anti-entropy undoes a removal through another agent or from the catalog. So every other address of
the URI is *owed* a look, from the start on, because a former process may have moved and died. As
soon as such an address answers, the services with our owner's mark are removed there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from enum import Enum

from registrator.backend import Unavailable
from registrator.uri import RegistryURI

from .api import Api
from .errors import Denied, NoAnswer
from .registration import OWNER
from .settings import Endpoint

INTERVAL = 1.0
"""Seconds between two rounds of looks."""

SECOND_LOOK = 2.0
"""Seconds until an address gets a second look. A frozen agent may carry out a write that timed out
when it thaws."""

MAX_SECONDS = 0.5
"""Seconds that one request of a look may take. A removal that takes longer is interrupted."""


_RULES = 'the token needs agent_prefix "" { policy = "read" }'


class Found(Enum):
    """The result of a look at an address."""

    CLEAN = "nothing of ours"
    SAME_AGENT = "the agent in use, at another address"
    AGAIN = "no answer, or copies that were removed"


class Leftovers:
    """The addresses that are owed a look, and the looks."""

    def __init__(
        self, uri: RegistryURI, owner: str, connect: Callable[[Endpoint, float], Api],
        timeout: float, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._name = str(uri)
        self._owner = owner
        self._connect = connect
        self._timeout = min(timeout, MAX_SECONDS)
        self._log = log
        self._known: set[Endpoint] = set()
        # When an address first had no copy of ours. None: it has not answered yet.
        self._owed: dict[Endpoint, float | None] = {}
        self._looks: dict[Endpoint, Future[Found]] = {}
        # The last logged refusal of each address. It is logged again only when it changes.
        self._refusals: dict[Endpoint, str] = {}

    def __bool__(self) -> bool:
        """Whether any address is owed a look."""
        return bool(self._owed)

    def moved(self, left: Endpoint | None, current: Endpoint, known: Iterable[Endpoint]) -> None:
        """Note that `current` is in use now. `known` are all addresses as names resolve now.

        This waits for the looks that are under way. They assume another agent in use, and must
        not remove anything from this one. Each look has a time limit.
        """
        wait(self._looks.values())
        self._looks.clear()
        new = set(known) - self._known
        self._known |= new | {current}
        self._owed |= dict.fromkeys(new | ({left} if left else set()))
        self._owed.pop(current, None)

    def look(self, node_id: Callable[[], str], pool: ThreadPoolExecutor) -> None:
        """Start a look at every address that is owed one. `node_id` asks the agent in use.

        This does not wait for the looks, because a dead address must not delay anything. Two
        addresses may lead to one agent, and nothing may be removed from the agent in use. Only
        the agents' ids show that.
        """
        self._collect()
        due = [endpoint for endpoint in self._owed if endpoint not in self._looks]
        if not due:
            return
        try:
            in_use = node_id()
        except Denied as error:
            self._complain(due[0], error)
            return
        for endpoint in due:
            self._looks[endpoint] = pool.submit(self._look_at, endpoint, in_use)

    def _collect(self) -> None:
        """Note the results of the looks that are over."""
        for endpoint in [each for each, look in self._looks.items() if look.done()]:
            found = self._looks.pop(endpoint).result()
            now = time.monotonic()
            if found is Found.AGAIN:
                self._owed[endpoint] = None
            else:
                since = self._owed[endpoint] = self._owed[endpoint] or now
                if found is Found.SAME_AGENT or now - since >= SECOND_LOOK:
                    del self._owed[endpoint]

    def _complain(self, endpoint: Endpoint, error: Unavailable) -> None:
        """Log why copies may remain. The refusal of an agent without its servers may pass."""
        why = f"{error}; {error.remedy(_RULES)}" if isinstance(error, Denied) else str(error)
        if self._refusals.get(endpoint) != why:
            self._refusals[endpoint] = why
            self._log.warning(
                "%s: copies of our services at %s cannot be found and removed yet: %s",
                self._name, endpoint, why,
            )  # fmt: skip

    def _look_at(self, endpoint: Endpoint, in_use: str) -> Found:
        """Remove our copies there. The address is clean when the next look finds none."""
        deadline = time.monotonic() + self._timeout
        api = self._connect(endpoint, self._timeout)
        try:
            if api.node_id() == in_use:
                return Found.SAME_AGENT
            ours = [
                i
                for i, s in api.services().items()
                if (s.get("Meta") or {}).get(OWNER) == self._owner
            ]
            for done, service_id in enumerate(ours, 1):
                api.agent.service.deregister(service_id)
                if time.monotonic() > deadline or done == len(ours):
                    self._log.info("%s: removed our copies at %s: %d", self._name, endpoint, done)
                    return Found.AGAIN
        except NoAnswer:
            return Found.AGAIN
        except Unavailable as error:
            self._complain(endpoint, error)
            return Found.AGAIN
        finally:
            api.http.close()
        self._refusals.pop(endpoint, None)
        return Found.CLEAN
