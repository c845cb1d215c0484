"""Our copies at Consul agents that are not in use: finds and removes them.

A registration belongs to the agent that took it, and stays until that agent is told to remove it.
Anti-entropy undoes a removal through another agent or from the catalog. So every other address of
the URI is *owed* a look, from the start on, because a former process may have moved and died. As
soon as such an address answers, our services are removed there. A copy whose original does not
stand at the agent in use may stay for some seconds: the agent in use may not have it yet.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registrator.backend import Unavailable
from registrator.model import Identity, Mark
from registrator.uri import RegistryURI

from .api import Api
from .errors import Denied, NoAnswer
from .registration import again, depends, mark
from .settings import Endpoint

INTERVAL = 1.0
"""Seconds between two looks at an address that answers."""

LONGEST = 30.0
"""Seconds between two looks at an address that does not answer, or denies us, at most."""

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
    COPIES = "copies of ours, of which some or all were removed"
    NO_ANSWER = "no answer, or a refusal"


@dataclass
class _Owed:
    """A look that an address is owed. `clean` is when it first had no copy of ours.

    `due` is when the next look is due, and `wait` the seconds between the last one and this.
    """

    clean: float | None = None
    due: float = 0.0
    wait: float = INTERVAL


class Leftovers:
    """The addresses that are owed a look, and the looks."""

    def __init__(
        self, uri: RegistryURI, identity: Identity, connect: Callable[[Endpoint, float], Api],
        timeout: float, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._name = str(uri)
        self._identity = identity
        self._connect = connect
        self._timeout = min(timeout, MAX_SECONDS)
        self._log = log
        self._known: set[Endpoint] = set()
        self._owed: dict[Endpoint, _Owed] = {}
        self._looks: dict[Endpoint, Future[Found]] = {}
        # The last logged refusal of each address. It is logged again only when it changes.
        self._refusals: dict[Endpoint, str] = {}

    def __bool__(self) -> bool:
        """Whether any address is owed a look."""
        return bool(self._owed)

    @property
    def due(self) -> float:
        """When the next look is due, on the monotonic clock. Only while any is owed."""
        return min(owed.due for owed in self._owed.values())

    def moved(self, left: Endpoint | None, current: Endpoint, known: Iterable[Endpoint]) -> None:
        """Note that `current` is in use now. `known` are all addresses as names resolve now.

        This waits for the looks that are under way. They assume another agent in use, and must
        not remove anything from this one. Each look has a time limit.
        """
        wait(self._looks.values())
        self._looks.clear()
        new = set(known) - self._known
        self._known |= new | {current}
        self._owed |= {endpoint: _Owed() for endpoint in new | ({left} if left else set())}
        self._owed.pop(current, None)

    def look(
        self, node_id: Callable[[], str], pool: ThreadPoolExecutor, only: Collection[str] | None,
        token: str | None,
    ) -> None:  # fmt: skip
        """Start a look at every address for which one is due. `node_id` asks the agent in use.

        `only` are the ids whose copies may go now; None for all. `token` is the mark of the token
        in use. This does not wait for the looks, because a dead address must not delay anything.
        Two addresses may lead to one agent, and nothing may be removed from the agent in use. Only
        the agents' ids show that.
        """
        self._collect()
        now = time.monotonic()
        due = [e for e, owed in self._owed.items() if e not in self._looks and owed.due <= now]
        if not due:
            return
        try:
            in_use = node_id()
        except Denied as error:
            self._complain(due[0], error)
            for endpoint in due:
                self._note(endpoint, Found.NO_ANSWER)
            return
        except NoAnswer:
            # The next call to the agent in use meets this too, and decides what to do.
            return
        for endpoint in due:
            self._looks[endpoint] = pool.submit(self._look_at, endpoint, in_use, only, token)

    def _collect(self) -> None:
        """Note the results of the looks that are over."""
        for endpoint in [each for each, look in self._looks.items() if look.done()]:
            self._note(endpoint, self._looks.pop(endpoint).result())

    def _note(self, endpoint: Endpoint, found: Found) -> None:
        """Note when the next look is due, if any is."""
        owed, now = self._owed[endpoint], time.monotonic()
        if found is Found.NO_ANSWER:
            # Jittered, so that the agents of many hosts do not look at the same moment.
            owed.due = now + owed.wait * random.uniform(0.7, 1.0)
            owed.wait = min(2 * owed.wait, LONGEST)
            owed.clean = None
            return
        owed.wait, owed.due = INTERVAL, now
        if found is Found.COPIES:
            owed.clean = None
            return
        owed.clean = owed.clean or now
        if found is Found.SAME_AGENT or now - owed.clean >= SECOND_LOOK:
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

    def _look_at(
        self, endpoint: Endpoint, in_use: str, only: Collection[str] | None, token: str | None
    ) -> Found:
        """Remove our copies there. The address is clean when the next look finds none."""
        api = self._connect(endpoint, self._timeout)
        try:
            if api.node_id() == in_use:
                return Found.SAME_AGENT
            found = self._remove_copies(api, only, token)
        except NoAnswer:
            return Found.NO_ANSWER
        except Unavailable as error:
            self._complain(endpoint, error)
            return Found.NO_ANSWER
        finally:
            api.http.close()
        self._refusals.pop(endpoint, None)
        return found

    def _remove_copies(self, api: Api, only: Collection[str] | None, token: str | None) -> Found:
        deadline = time.monotonic() + self._timeout
        services = api.services()
        ours = [key for key, service in services.items() if self._is_ours(key, service)]
        done = 0
        for service_id in ours:
            if (only is None or service_id in only) and time.monotonic() < deadline:
                if depends(services[service_id], token):
                    api.register(again(services[service_id]))
                api.deregister(service_id)
                done += 1
        if done:
            self._log.info("%s: removed our copies at %s: %d", self._name, api.endpoint, done)
        return Found.COPIES if ours else Found.CLEAN

    def _is_ours(self, key: str, service: Mapping[str, Any]) -> bool:
        """Whether a service is a copy of ours. Another host may have our engine's id.

        An entry of version 1.0.0 names no host. Its id does.
        """
        whose = mark(service, self._identity)
        named = key.startswith(f"{self._identity.hostname}:")
        return whose is Mark.OURS or (whose is Mark.UNTOLD and named)
