"""Removals by Consul agent and token, to do them once more after the token has changed.

Consul removes a service from its catalog with the token that registered it. An agent takes a
removal before its servers hear of it. If the token is deleted in between, they never do, and the
service stands in the catalog for good. So what was removed with another token than the one in use
is *in doubt*, and is removed once more. A removal is settled when its token is still in use a
minute later.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Container, Mapping
from typing import NamedTuple

from registrator.model import Identity

from .api import Api
from .errors import Denied, Refused
from .registration import marks
from .settings import Endpoint

DOUBT = 60.0
"""Seconds after a removal within which an agent may not have told its servers."""

MAX_NOTED = 1000


class Removal(NamedTuple):
    """One removal. `when` is on the monotonic clock.

    `token` is the mark of the token that registered the service, or None if it is not known.
    """

    when: float
    endpoint: Endpoint
    id: str
    name: str
    token: str | None


class Removals:
    """Notes removals. Several threads may call it, each for another agent."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._noted: deque[Removal] = deque(maxlen=MAX_NOTED)

    def note(self, endpoint: Endpoint | None, names: Mapping[str, str], token: str | None) -> None:
        """Note removals by id and name, before their requests: an answer may be lost."""
        now = time.monotonic()
        for service_id, name in names.items():
            if endpoint and name:
                self._noted.append(Removal(now, endpoint, service_id, name, token))

    def settle(self, token: str | None) -> None:
        """Forget what was removed more than `DOUBT` ago with the token that is still in use."""
        since = time.monotonic() - DOUBT
        for each in list(self._noted):
            if each.token == token and each.when < since:
                self._forget(each)

    def endpoints(self, token: str | None) -> set[Endpoint]:
        """The agents at which a removal is in doubt. `token` is the mark of the token in use."""
        return {each.endpoint for each in self._doubtful(token)}

    def redo(
        self, api: Api, standing: Container[str], token: str | None, until: float = math.inf
    ) -> bool:
        """Do once more, at one agent, the removals that are in doubt there.

        What is `standing` there is none of them. The others stand in the catalog for a moment, in a
        critical state and without an address. Returns whether all was done `until` a moment on the
        monotonic clock. Raises `Denied` if the agent does not know the token, as just after a
        restart of a server.
        """
        for each in self._doubtful(token):
            if each.endpoint != api.endpoint:
                continue
            if time.monotonic() > until:
                return False
            if each.id not in standing:
                body = {"ID": each.id, "Name": each.name, "Meta": marks(self._identity, token)}
                check = {"TTL": "1h", "Status": "critical"}
                try:
                    api.register(body | {"Check": check})
                    api.deregister(each.id)
                except (Denied, Refused) as error:
                    if isinstance(error, Denied) and error.unknown:
                        raise
            self._forget(each)
        return True

    def _forget(self, removal: Removal) -> None:
        with contextlib.suppress(ValueError):  # Newer ones may have pushed it out.
            self._noted.remove(removal)

    def _doubtful(self, token: str | None) -> list[Removal]:
        return [each for each in list(self._noted) if token not in (None, each.token)]
