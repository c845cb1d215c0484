"""The entries at the Consul agent in use, as far as we know, and the writes that change them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from registrator.model import Entry

from . import checks as ids
from . import registration as shape
from .api import Api
from .container_health import Statuses

# One empty mapping for all services without checks: thousands of empty ones take memory.
NO_CHECKS: Mapping[str, str] = MappingProxyType({})


class Standing:
    """`ours` are our services, and those that may stand: their names by id. `checks` are, for each
    service that stands, the types by id of those of its checks that we would make. `token` is the
    mark of the token with which the last listing compared ours. The `outdated` ones depend on
    another. Several threads write, each for another service.
    """

    def __init__(self) -> None:
        self.ours: dict[str, str] = {}
        self.checks: dict[str, Mapping[str, str]] = {}
        self.outdated: dict[str, Mapping[str, Any]] = {}
        self.token: str | None = None
        self.health = Statuses()
        # Checks whose ids we would not give to a check of their service, with the service's id.
        self._foreign: dict[str, str] = {}
        self._disputed: set[str | None] = set()  # the services for which these ids would be

    def listed(self, services: Iterable[str], checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the checks of a listing. The caller says which services are `ours`."""
        self._foreign = ids.foreign(checks)
        self._disputed = set(map(ids.service_of, self._foreign))
        found: dict[str, dict[str, str]] = {}
        for key, check in checks.items():
            owner = ids.service_of(key)
            if owner is not None and key not in self._foreign:
                found.setdefault(owner, {})[key] = check.get("Type") or ""
        self.checks = {key: found.get(key, NO_CHECKS) for key in services}
        self.health = Statuses(checks)

    def followers(self) -> set[str]:
        """Our services whose checks follow the owner."""
        return {key for key in self.ours if ids.alias_id(key) in self.checks.get(key, ())}

    def disputes(self, service_id: str) -> bool:
        """Whether a check of another service has an id that a check of this one may have."""
        return service_id in self._disputed

    def taken(self, body: Mapping[str, Any]) -> str:
        """Why the checks of a service cannot be registered. Empty if they can."""
        for each in self._foreign.keys() & ids.types(body).keys():
            owner = self._foreign[each] or "the node"
            return f"the id of its check, {each!r}, belongs to a check of {owner}"
        return ""

    def write(self, api: Api, entry: Entry, body: Mapping[str, Any]) -> None:
        """Register a service, or set only the status of its health check if the rest stands."""
        if entry.key in self.outdated or not self.health.suffices(api, entry):
            self.register(api, body)
            self.health.registered(api, entry)

    def register(self, api: Api, body: Mapping[str, Any]) -> None:
        """Register a service. Remove those of its checks that are ours and not wanted.

        A check of another type under the same id would go on beside the new one.
        """
        service_id = body["ID"]
        if "EnableTagOverride" in body:
            body = {**body, "Tags": shape.kept_tags(body, api.service(service_id))}
        # Before the request: the agent may carry it out although its answer never comes.
        self.ours[service_id] = body["Name"]
        wanted = ids.types(body)
        known = self.checks.get(service_id, {})
        for check_id, kind in known.items():
            if kind and kind != wanted.get(check_id, kind):
                api.deregister_check(check_id)
        api.register(body)
        self.outdated.pop(service_id, None)
        for stale in known.keys() - wanted.keys():
            api.deregister_check(stale)
        self.checks[service_id] = wanted or NO_CHECKS

    def deregister(self, api: Api, service_id: str) -> None:
        """Remove a service and all its checks."""
        if body := self.outdated.pop(service_id, None):
            api.register(body)
        api.deregister(service_id)
        self.checks.pop(service_id, None)
        self.health.gone(service_id)
        self.ours.pop(service_id, None)
