"""Our copies at Consul agents that are not in use: finds and removes them.

A registration belongs to the agent that took it, and stays until that agent is told to remove it.
Anti-entropy undoes a removal through another agent or from the catalog. So every other address of
the URI is *owed* a look, from the start on, because a former process may have moved and died. As
soon as such an address answers, our services are removed there. A copy goes at once if its id
stands at the agent in use. About any other copy a plan decides, as about an entry of the agent in
use: a listing shows it as ours, and the plan registers or removes it.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registrator.backend import Unavailable
from registrator.model import Identity, Mark
from registrator.uri import RegistryURI

from .api import Api
from .errors import Denied, NoAnswer
from .lifetime import OWNERS
from .registration import again, depends, mark
from .removals import Removals
from .settings import Endpoint

INTERVAL = 1.0
"""Seconds between two looks at an address that answers."""

LONGEST = 30.0
"""Seconds at most between two looks at an address that does not answer, or denies us, or has only
copies that a plan has to decide about."""

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
    UNDECIDED = "only copies that a plan has to decide about"
    NO_ANSWER = "no answer, or a refusal"


@dataclass
class _Owed:
    """A look that an address is owed. `clean` is when it first had no copy of ours.

    `due` is when the next look is due, and `wait` the seconds between the last one and this. With
    `waits`, only a plan can change what is there.
    """

    clean: float | None = None
    waits: bool = False
    due: float = 0.0
    wait: float = INTERVAL


class Leftovers:
    """The addresses that are owed a look, and the looks."""

    def __init__(
        self, uri: RegistryURI, identity: Identity, connect: Callable[[Endpoint, float], Api],
        timeout: float, log: logging.Logger, wake: Callable[[], None], removals: Removals,
    ) -> None:  # fmt: skip
        self._name = str(uri)
        self._identity = identity
        self._connect = connect
        self._timeout = min(timeout, MAX_SECONDS)
        self._log = log
        self._wake = wake
        self._removals = removals
        self._known: set[Endpoint] = set()
        self._owed: dict[Endpoint, _Owed] = {}
        self._looks: dict[Endpoint, Future[Found]] = {}
        # The ids of our copies, as far as known. Looks write them, each for its own address.
        self._found: dict[Endpoint, frozenset[str]] = {}
        self._shown: Set[str] = frozenset()  # the ids that the last listing showed
        self._unwanted: set[str] = set()  # the ids of copies that a plan removed
        # The last logged refusal of each address. It is logged again only when it changes.
        self._refusals: dict[Endpoint, str] = {}

    def __bool__(self) -> bool:
        """Whether any address is owed a look."""
        return bool(self._owed)

    @property
    def due(self) -> float:
        """When the next look is due, on the monotonic clock. Only while any is owed."""
        return min(owed.due for owed in self._owed.values())

    def owe(self, endpoints: Iterable[Endpoint]) -> None:
        """Have these addresses looked at again."""
        self._owed = {endpoint: _Owed() for endpoint in endpoints} | self._owed

    def undecided(self, standing: Set[str]) -> Set[str]:
        """The ids of the copies that a plan has to decide about.

        `standing` are the ids that stand at the agent in use, whoever registered them.
        """
        return self._all_found() - standing - self._unwanted

    def shown(self, ids: Set[str]) -> None:
        """Note the ids of the copies that the last listing shows."""
        self._shown = ids

    def are_news(self, standing: Set[str]) -> bool:
        """Whether there are copies to decide about that the last listing does not show."""
        return not self.undecided(standing) <= self._shown

    def decided(self, wanted: Set[str], unwanted: Set[str]) -> bool:
        """Note what a plan registered and removed. Returns whether a look is due by that."""
        self._collect()
        copies = self._all_found()
        self._unwanted = (self._unwanted - wanted) | (copies & unwanted)
        if not copies & (wanted | unwanted):
            return False
        waiting = [owed for owed in self._owed.values() if owed.waits]
        for owed in waiting:
            owed.due, owed.wait = 0.0, INTERVAL
        return bool(waiting)

    def _all_found(self) -> Set[str]:
        return frozenset().union(*self._found.copy().values())

    def moved(
        self,
        left: Endpoint | None,
        ours: Iterable[str],
        current: Endpoint,
        known: Iterable[Endpoint],
    ) -> None:
        """Note that `current` is in use now. `known` are all addresses as names resolve now.

        `ours` are the ids of our services at the address that was `left`. This waits for the looks
        that are under way. They assume another agent in use, and must not remove anything from this
        one. Each look has a time limit.
        """
        wait(self._looks.values())
        self._looks.clear()
        new = set(known) - self._known
        self._known |= new | {current}
        self._owed |= {endpoint: _Owed() for endpoint in new | ({left} if left else set())}
        self._owed.pop(current, None)
        if left:
            self._found[left] = frozenset(ours)
        self._found.pop(current, None)

    def look(
        self, node_id: Callable[[], str], pool: ThreadPoolExecutor, standing: Set[str],
        token: str | None,
    ) -> None:  # fmt: skip
        """Start a look at every address for which one is due. `node_id` asks the agent in use.

        `standing` are the ids that stand there, and `token` is the mark of the token in use. This
        does not wait for the looks, because a dead address must not delay anything. Two addresses
        may lead to one agent, and nothing may be removed from the agent in use. Only the agents'
        ids show that.
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
        may_go = self._unwanted | standing
        for endpoint in due:
            self._looks[endpoint] = pool.submit(self._look_at, endpoint, in_use, may_go, token)

    def _collect(self) -> None:
        """Note the results of the looks that are over."""
        for endpoint in [each for each, look in self._looks.items() if look.done()]:
            self._note(endpoint, self._looks.pop(endpoint).result())

    def _note(self, endpoint: Endpoint, found: Found) -> None:
        """Note when the next look is due, if any is."""
        owed, now = self._owed[endpoint], time.monotonic()
        owed.waits = found is Found.UNDECIDED
        if found in (Found.NO_ANSWER, Found.UNDECIDED):
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
            self._found.pop(endpoint, None)
            self._unwanted &= self._all_found()

    def _complain(self, endpoint: Endpoint, error: Unavailable) -> None:
        """Log why copies may remain. The refusal of an agent without its servers may pass."""
        why = f"{error}; {error.remedy(_RULES)}" if isinstance(error, Denied) else str(error)
        if self._refusals.get(endpoint) != why:
            self._refusals[endpoint] = why
            self._log.warning(
                "%s: copies of our services at %s cannot be found and removed yet: %s",
                self._name, endpoint, why,
                extra={"registry": self._name, "server": endpoint},
            )  # fmt: skip

    def _look_at(
        self, endpoint: Endpoint, in_use: str, may_go: Set[str], token: str | None
    ) -> Found:
        """Remove our copies there. The address is clean when the next look finds none."""
        api = self._connect(endpoint, self._timeout)
        try:
            if api.node_id() == in_use:
                return Found.SAME_AGENT
            found = self._remove_copies(api, may_go, token)
        except NoAnswer:
            return Found.NO_ANSWER
        except Unavailable as error:
            self._complain(endpoint, error)
            return Found.NO_ANSWER
        finally:
            api.http.close()
        self._refusals.pop(endpoint, None)
        return found

    def _remove_copies(self, api: Api, may_go: Set[str], token: str | None) -> Found:
        """Remove the copies that may go. The owner's service goes last, since others follow it."""
        deadline = time.monotonic() + self._timeout
        services = api.services()
        all_done = self._removals.redo(api, services, token, deadline)
        ours = {key for key, service in services.items() if self._is_ours(key, service)}
        owners = {key for key in ours if key.startswith(OWNERS)}
        copies = self._found[api.endpoint] = frozenset(ours - owners)
        going = [*(copies & may_go), *(owners if copies <= may_go else ())]
        done = 0
        for service_id in going:
            if time.monotonic() < deadline:
                if depends(services[service_id], token):
                    api.register(again(services[service_id]))
                name = services[service_id]["Service"]
                self._removals.note(api.endpoint, {service_id: name}, token)
                api.deregister(service_id)
                done += 1
        if done:
            self._log.info(
                "%s: removed our copies at %s: %d", self._name, api.endpoint, done,
                extra={"registry": self._name, "server": api.endpoint},
            )  # fmt: skip
        if not copies - may_go <= self._shown:
            self._wake()
        if ours and not going and all_done:
            return Found.UNDECIDED
        return Found.COPIES if ours or not all_done else Found.CLEAN

    def _is_ours(self, key: str, service: Mapping[str, Any]) -> bool:
        """Whether a service is a copy of ours. Another host may have our engine's id.

        An entry of version 1.0.0 names no host. Its id does.
        """
        whose = mark(service, self._identity)
        named = key.startswith(f"{self._identity.hostname}:")
        return whose is Mark.OURS or (whose is Mark.UNTOLD and named)
