"""The entries at the Consul agent in use, as far as we know, and the writes that change them."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from . import registration as shape
from .api import Api

DOUBT = 60.0
"""Seconds after a removal within which Consul's agent may not have told its servers."""

MAX_REMOVED = 1000


class Standing:
    """`ours` are our services, and those that may stand: their names by id. `checks` are, for each
    service that stands, the types by id of those of its checks that we would make. Several threads
    write, each for another service.
    """

    def __init__(self) -> None:
        self.ours: dict[str, str] = {}
        self.checks: dict[str, dict[str, str]] = {}
        self.outdated: dict[str, Mapping[str, Any]] = {}
        # What was removed last: when, the id and the name.
        self._removed: deque[tuple[float, str, str]] = deque(maxlen=MAX_REMOVED)
        # Checks whose ids we would not give to a check of their service, with the service's id.
        self._foreign: dict[str, str] = {}

    def listed(self, services: Iterable[str], checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the checks of a listing. The caller says which services are `ours`."""
        self._foreign = shape.foreign(checks)
        types = {key: check.get("Type") or "" for key, check in checks.items()}
        for foreign in self._foreign:
            del types[foreign]
        self.checks = {
            key: {each: types[each] for each in shape.possible_check_ids(key) if each in types}
            for key in services
        }

    def followers(self) -> set[str]:
        """Our services whose checks follow the owner."""
        return {key for key in self.ours if shape.alias_id(key) in self.checks.get(key, ())}

    def disputes(self, service_id: str) -> bool:
        """Whether a check of another service has an id that a check of this one may have."""
        return bool(self._foreign.keys() & shape.possible_check_ids(service_id))

    def taken(self, body: Mapping[str, Any]) -> str:
        """Why the checks of a service cannot be registered. Empty if they can."""
        for each in self._foreign.keys() & shape.check_types(body).keys():
            owner = self._foreign[each] or "the node"
            return f"the id of its check, {each!r}, belongs to a check of {owner}"
        return ""

    def register(self, api: Api, body: Mapping[str, Any]) -> None:
        """Register a service. Remove those of its checks that are ours and not wanted.

        A check of another type under the same id would go on beside the new one.
        """
        service_id = body["ID"]
        # Before the request: the agent may carry it out although its answer never comes.
        self.ours[service_id] = body["Name"]
        wanted = shape.check_types(body)
        known = self.checks.get(service_id, {})
        for check_id, kind in known.items():
            if kind and kind != wanted.get(check_id, kind):
                api.deregister_check(check_id)
        api.register(body)
        self.outdated.pop(service_id, None)
        for stale in known.keys() - wanted.keys():
            api.deregister_check(stale)
        self.checks[service_id] = wanted

    def deregister(self, api: Api, service_id: str) -> None:
        """Remove a service and all its checks."""
        if body := self.outdated.pop(service_id, None):
            api.register(body)
        api.deregister(service_id)
        self.checks.pop(service_id, None)
        self._removed.append((time.monotonic(), service_id, self.ours.pop(service_id, "")))

    def removed_lately(self, marks: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
        """The bodies for `remove_again` by id, of the removals of the last `DOUBT` seconds.

        A body has our `marks` and no address, and its check is critical. Services that stand have
        none.
        """
        since = time.monotonic() - DOUBT
        critical = {"TTL": "1h", "Status": "critical"}
        return {
            key: {"ID": key, "Name": name, "Meta": marks, "Check": critical}
            for when, key, name in self._removed
            if when > since and name and key not in self.checks
        }

    def remove_again(self, api: Api, body: Mapping[str, Any]) -> None:
        """Remove a service once more, with the token in use.

        Consul removes a service from its catalog with the token that registered it. If that token
        was deleted before the catalog heard of the removal, it never hears of it. For a moment the
        service may stand there, and it is critical.
        """
        api.register(body)
        api.deregister(body["ID"])
