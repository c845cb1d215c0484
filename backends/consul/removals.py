"""Removals of the last minute, by Consul agent and token, to do them once more.

Consul removes a service from its catalog with the token that registered it. An agent takes a
removal before its servers hear of it. If the token is deleted in between, they never do, and the
service stands in the catalog for good. So after a change of the token, what was removed shortly
before is removed once more.
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
    """One removal. `when` is on the monotonic clock, and `token` is the mark of the token."""

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

    def endpoints(self, token: str | None) -> set[Endpoint]:
        """The agents at which something was removed lately with another token."""
        return {each.endpoint for each in self._doubtful(token)}

    def redo(
        self, api: Api, standing: Container[str], token: str | None, until: float = math.inf
    ) -> bool:
        """Remove once more, at one agent, what was removed there lately with another token.

        What is `standing` there is none of it. The others stand in the catalog for a moment, in a
        critical state and without an address. Returns whether all was done `until` a moment on the
        monotonic clock.
        """
        for each in self._doubtful(token):
            if each.endpoint != api.endpoint:
                continue
            if time.monotonic() > until:
                return False
            if each.id not in standing:
                body = {"ID": each.id, "Name": each.name, "Meta": marks(self._identity, token)}
                check = {"TTL": "1h", "Status": "critical"}
                with contextlib.suppress(Denied, Refused):
                    api.register(body | {"Check": check})
                    api.deregister(each.id)
            with contextlib.suppress(ValueError):  # Newer ones may have pushed it out.
                self._noted.remove(each)
        return True

    def _doubtful(self, token: str | None) -> list[Removal]:
        if token is None:
            return []
        since = time.monotonic() - DOUBT
        return [each for each in list(self._noted) if each.when > since and each.token != token]
