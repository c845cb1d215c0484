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
from concurrent.futures import ThreadPoolExecutor

from registrator.backend import Unavailable

from .consul_http import Api, Denied, NoAnswer
from .consul_service import OWNER
from .consul_settings import Endpoint

INTERVAL = 1.0
"""Seconds between two looks at the addresses that owe one."""

SECOND_LOOK = 2.0
"""Seconds until an address is looked at again before it owes nothing more: a write that timed out
at a frozen agent is carried out when it thaws."""

BUDGET = 0.5
"""Seconds that one look may take, dead addresses and long removals included."""


class Leftovers:
    """The addresses that owe us a look, and the looks."""

    def __init__(
        self, owner: str, connect: Callable[[Endpoint, float], Api], timeout: float,
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self._owner = owner
        self._connect = connect
        self._budget = min(timeout, BUDGET)
        self._log = log
        self._known: set[Endpoint] = set()
        # When an address was first seen without a copy of ours; None: it has yet to answer.
        self._owed: dict[Endpoint, float | None] = {}

    def __bool__(self) -> bool:
        """Whether any address owes a look."""
        return bool(self._owed)

    def moved(self, left: Endpoint | None, current: Endpoint, known: Iterable[Endpoint]) -> None:
        """The agent in use is now `current`; `known` are all addresses as names resolve now."""
        new = set(known) - self._known
        self._known |= new | {current}
        self._owed |= dict.fromkeys(new | ({left} if left else set()))
        self._owed.pop(current, None)

    def look(self, node_id: Callable[[], str], pool: ThreadPoolExecutor) -> None:
        """Look at every address that owes it, all at once; `node_id` is of the agent in use.

        Two addresses may be one agent, and nothing is ever removed from the one in use: only
        the agents' own ids tell them apart.
        """
        if not self._owed:
            return
        try:
            in_use = node_id()
        except Denied as error:
            self._give_up(list(self._owed), error)
            return
        done = pool.map(lambda endpoint: self._look_at(endpoint, in_use), list(self._owed))
        for endpoint, answered in list(zip(list(self._owed), done, strict=True)):
            if isinstance(answered, Denied):
                self._give_up([endpoint], answered)
            elif answered is None:
                self._owed[endpoint] = None
            elif answered:
                since = self._owed[endpoint] or time.monotonic()
                self._owed[endpoint] = since
                if answered == "same" or time.monotonic() - since >= SECOND_LOOK:
                    del self._owed[endpoint]

    def _give_up(self, endpoints: Iterable[Endpoint], error: Denied) -> None:
        for endpoint in endpoints:
            self._log.warning(
                "copies of our services at %s are not looked for, since two addresses can't be "
                "told apart: the token needs agent_prefix \"\" { policy = \"read\" } (%s)",
                endpoint, error,
            )  # fmt: skip
            del self._owed[endpoint]

    def _look_at(self, endpoint: Endpoint, in_use: str) -> str | Denied | None:
        """``same`` agent as the one in use, ``clean``, or None where it has to be looked at again.

        What was removed counts as clean only at the next look.
        """
        deadline = time.monotonic() + self._budget
        api = self._connect(endpoint, self._budget)
        try:
            if api.node_id() == in_use:
                return "same"
            found = api.agent.services() or {}
            ours = [i for i, s in found.items() if (s.get("Meta") or {}).get(OWNER) == self._owner]
            for done, service_id in enumerate(ours, 1):
                api.agent.service.deregister(service_id)
                if time.monotonic() > deadline or done == len(ours):
                    self._log.info("removed %d copies of our services at %s", done, endpoint)
                    return None
        except Denied as error:
            return error
        except NoAnswer:
            return None
        except Unavailable as error:
            self._log.warning("copies of our services cannot be removed yet: %s", error)
            return None
        finally:
            api.http.close()
        return "clean"
