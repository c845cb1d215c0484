"""The check that shows what a container's own health check says (``-health``).

It is a TTL check that never lapses in practice. Registrator sets its status. Consul keeps the
status of a check when its service is registered again, whatever that registration says. It also
keeps it over a restart, but only if a request set it. So a request of its own sets each status.
"""

from collections.abc import Mapping, Set
from typing import Any

from registrator.model import Actual, ContainerHealth, Entry, Service

from .api import Api
from .errors import Refused

# Ten years. Each new status begins them anew.
_TTL = "87600h"

# A starting container has no status of its own: the one that stands is left.
_STATUS = {ContainerHealth.HEALTHY: "passing", ContainerHealth.UNHEALTHY: "critical"}


def check_id(service_id: str) -> str:
    """The id of the check of a service."""
    return f"registrator-health:{service_id}"


def status(service: Service) -> str:
    """The status that the check should have, or an empty text if any is fine."""
    return _STATUS.get(service.health, "")


def checks(service: Service) -> list[dict[str, str]]:
    """The check to register with a service, if it has one. A new one is critical at first."""
    if service.health is ContainerHealth.NONE:
        return []
    check = {"CheckID": check_id(service.id), "Name": "The container's health check"}
    return [check | {"TTL": _TTL, "Status": status(service) or "critical"}]


class Statuses:
    """The statuses that stand at the Consul agent in use, by service id.

    Several threads write, each for another service.
    """

    def __init__(self, checks: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """`checks` are those of a listing."""
        start = check_id("")
        self._found = {
            key.removeprefix(start): str(check.get("Status"))
            for key, check in (checks or {}).items()
            if key == f"{start}{check.get('ServiceID')}"
        }
        self._contents: dict[str, str] = {}

    def of(self, service_id: str) -> str:
        """The status of a service, or an empty text if it has no such check."""
        return self._found.get(service_id, "")

    def stand_with(self, found: Mapping[str, Actual], ours: Set[str]) -> None:
        """Note with which content our services stand. `found` is a listing by service id."""
        self._contents = {key: found[key].content for key in self._found.keys() & ours}

    def suffices(self, api: Api, entry: Entry) -> bool:
        """Set the status of a service that stands and is right otherwise. False if there is none.

        To register such a service again would disturb its other checks.
        """
        if self._contents.get(entry.key) != entry.content:
            return False
        try:
            self._set(api, entry)
        except Refused:
            return False  # Probably somebody removed it. It is registered again.
        return True

    def registered(self, api: Api, entry: Entry) -> None:
        """Set the status of a service that was registered now."""
        if entry.service.health is ContainerHealth.NONE:
            self.gone(entry.key)
            return
        self._found.setdefault(entry.key, "critical")
        self._contents[entry.key] = entry.content
        self._set(api, entry)

    def gone(self, service_id: str) -> None:
        """Forget a service."""
        self._found.pop(service_id, None)
        self._contents.pop(service_id, None)

    def _set(self, api: Api, entry: Entry) -> None:
        if entry.status not in ("", self._found[entry.key]):
            api.update_check(check_id(entry.key), entry.status)
            self._found[entry.key] = entry.status
