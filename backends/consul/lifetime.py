"""With ``-ttl``: the owner's TTL check, and the checks of our services that follow it.

A small service ``registrator`` has one TTL check. Every service has an alias check that follows
this check. An alias check also follows the checks of the node, and Consul removes a service whose
alias check is critical for a minute. So a node in maintenance would lose all its services, although
we are alive. Each refresh therefore looks at the alias checks and registers the critical ones
again. Consul then counts their time anew, and evaluates them. So they pass soon after the node is
well again.
"""

from collections.abc import Callable, Mapping
from typing import Any

from registrator.backend import Context, SessionLost

from ..common.keeper import Keeper
from . import registration as shape
from .api import Api
from .checks import alias_id, check_id
from .errors import Refused

OWNERS = "registrator:"
"""The start of the ids of the services that represent owners."""

# Seconds. Consul raises a shorter delay to this.
_REAP_AFTER = 60.0

_ALIAS_NAME = "Registrator on its host is alive"


class Lifetime:
    """The owner's TTL check. It must be renewed before it lapses, whatever else goes on.

    `stands` says whether it is registered with the token in use, as far as we know. `due` is True
    until it was renewed for the first time.
    """

    def __init__(self, context: Context, connect: Callable[[], Api | None]) -> None:
        """`connect` makes a connection for one request from another thread (see `Keeper`)."""
        self._identity = context.identity
        self.id = f"{OWNERS}{self._identity.owner}:{self._identity.hostname}"
        self.stands, self.due = False, True
        self._ttl = context.ttl
        self._connect = connect
        self._keeper = Keeper(context.ttl, context.ttl_refresh, self._beat, context.wake)

    def listed(
        self, services: Mapping[str, Any], checks: Mapping[str, Any], token: str | None
    ) -> None:
        """Take over what a listing says of the owner's service."""
        meta = services.get(self.id, {}).get("Meta") or {}
        check = checks.get(check_id(self.id), {})
        self.stands = bool(check) and token in (None, meta.get(shape.TOKEN, ""))
        self.due = not self.stands or check.get("Status") != "passing"

    def lost(self) -> None:
        """Note that the agent in use may not have the owner's service."""
        self.stands, self.due = False, True

    def renew(self, api: Api, token: str | None) -> None:
        """Renew the TTL check, or register it if it is missing. Raises `SessionLost`."""
        if not self.stands:
            api.register(self._body(token))
            self.stands = True
        else:
            try:
                self._touch(api)
            except SessionLost:
                self.lost()
                raise
        self.due = False
        self._keeper.kept()

    def stop(self) -> None:
        """Leave the TTL check to its end."""
        self._keeper.stop()

    def _beat(self) -> None:
        """Renew the TTL check while the reconciler is busy."""
        if self.stands and (api := self._connect()):
            try:
                self._touch(api)
            finally:
                api.http.close()

    def _touch(self, api: Api) -> None:
        """Renew the TTL check, from any thread. Raises `SessionLost` if it is missing."""
        try:
            api.agent.check.ttl_pass(check_id(self.id))
        except Refused as error:
            raise SessionLost(f"Registrator's own TTL check is gone: {error}") from error

    def alias(self, service_id: str) -> dict[str, str]:
        """The check that makes a service follow the owner."""
        alias = {"AliasService": self.id, "Name": _ALIAS_NAME}
        return alias | {"CheckID": alias_id(service_id)} | self._life()

    def critical(self, api: Api, followers: set[str]) -> list[str]:
        """The followers whose alias checks are critical. Raises `SessionLost` if one is missing.

        This takes one request.
        """
        found = api.checks_named(_ALIAS_NAME)
        statuses = {each: found.get(alias_id(each), {}).get("Status") for each in followers}
        if missing := sorted(each for each, status in statuses.items() if not status):
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise SessionLost(f"{missing[0]}{more} or its check is gone from {api.endpoint}")
        return [each for each, status in statuses.items() if status == "critical"]

    def restart(self, api: Api, service_id: str) -> None:
        """Register a critical alias check again: its time to live starts anew.

        It often stays critical, although the node may be well by now. See `evaluate`.
        """
        body = self.alias(service_id) | {"ServiceID": service_id}
        # This request calls the id of a check by another name than that for a service.
        api.register_check(body | {"ID": body.pop("CheckID")})

    def evaluate(self, api: Api, token: str | None) -> None:
        """Have Consul evaluate all alias checks, by registering what they follow once more.

        By itself Consul evaluates a check once a minute, and each restart begins that minute anew.
        """
        api.register(self._body(token))

    def _body(self, token: str | None) -> dict[str, Any]:
        check = {"CheckID": check_id(self.id), "Name": "Registrator is alive"}
        return {
            "ID": self.id,
            "Name": "registrator",
            "Meta": shape.marks(self._identity, token),
            "Check": check | {"TTL": f"{self._ttl:.3f}s"} | self._life(),
        }

    def _life(self) -> dict[str, str]:
        after = f"{max(self._ttl, _REAP_AFTER):.3f}s"
        return {"Status": "passing", "DeregisterCriticalServiceAfter": after}
