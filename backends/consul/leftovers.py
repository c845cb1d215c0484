"""Our copies at Consul agents that are not, or no longer, the one in use.

A registration belongs to the agent it was made with and stays there until that very agent is told
otherwise: removing it through another agent or from the catalog is undone by anti-entropy. So
every address of the URI other than the one in use *owes* us a look, from the start on (we may
have died after a move): as soon as it answers, what carries our owner's mark there is removed.
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
"""Seconds between two looks at the addresses that owe one."""

SECOND_LOOK = 2.0
"""Seconds until an address is looked at again before it owes nothing more: a write that timed out
at a frozen agent is carried out when it thaws."""

BUDGET = 0.5
"""Seconds that a request of a look may take, and after which a long removal is interrupted."""


_RULES = 'the token needs agent_prefix "" { policy = "read" }'


class Found(Enum):
    """What a look at an address showed."""

    CLEAN = "nothing of ours"
    SAME_AGENT = "the agent in use, at another address"
    AGAIN = "no answer, or copies that were removed"


class Leftovers:
    """The addresses that owe us a look, and the looks."""

    def __init__(
        self, uri: RegistryURI, owner: str, connect: Callable[[Endpoint, float], Api],
        timeout: float, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._name = str(uri)
        self._owner = owner
        self._connect = connect
        self._budget = min(timeout, BUDGET)
        self._log = log
        self._known: set[Endpoint] = set()
        # When an address was first seen without a copy of ours; None: it has yet to answer.
        self._owed: dict[Endpoint, float | None] = {}
        self._looks: dict[Endpoint, Future[Found]] = {}
        # Why an address refuses to be looked at: said once, as long as it is the same.
        self._refusals: dict[Endpoint, str] = {}

    def __bool__(self) -> bool:
        """Whether any address owes a look."""
        return bool(self._owed)

    def moved(self, left: Endpoint | None, current: Endpoint, known: Iterable[Endpoint]) -> None:
        """The agent in use is now `current`; `known` are all addresses as names resolve now.

        Waits for the looks under way, each of which has its deadline: they took another agent
        for the one in use, and must not remove anything from this one.
        """
        wait(self._looks.values())
        self._looks.clear()
        new = set(known) - self._known
        self._known |= new | {current}
        self._owed |= dict.fromkeys(new | ({left} if left else set()))
        self._owed.pop(current, None)

    def look(self, node_id: Callable[[], str], pool: ThreadPoolExecutor) -> None:
        """Have every address looked at that owes it; `node_id` is of the agent in use.

        Returns without waiting for the looks: a dead address must not hold up anything. Two
        addresses may be one agent, and nothing is ever removed from the one in use: only the
        agents' own ids tell them apart.
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
        """Note what came of the looks that are over."""
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
        """Say why copies may stay. A refusal may pass, as that of an agent without its servers."""
        why = f"{error}; {error.remedy(_RULES)}" if isinstance(error, Denied) else str(error)
        if self._refusals.get(endpoint) != why:
            self._refusals[endpoint] = why
            self._log.warning(
                "%s: copies of our services at %s cannot be looked for and removed yet: %s",
                self._name, endpoint, why,
            )  # fmt: skip

    def _look_at(self, endpoint: Endpoint, in_use: str) -> Found:
        """Remove what is ours there; that counts as clean only when the next look finds nothing."""
        deadline = time.monotonic() + self._budget
        api = self._connect(endpoint, self._budget)
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
