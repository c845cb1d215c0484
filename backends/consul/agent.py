"""Services at a Consul agent: the schemes ``consul``, ``consul-tls`` and ``consul-unix``.

An entry's key is the service id. The Meta key ``registrator-owner`` marks a service as ours. So
the next process also recognizes a service whose name and id the user chose.

A registration belongs to the agent that took it. When a call finds its agent dead, it moves to
the next address that works and raises `SessionLost`. The caller then lists there and writes what
is missing. The copies at the former agent are removed when that agent answers (see `leftovers`).

With ``-ttl``, a small service ``registrator`` with one TTL check represents the owner. Every
service gets an alias check that follows this check. So one request per refresh keeps all services
passing. When the TTL lapses, all services turn critical at once. A minute later (Consul's
shortest delay) the agent removes them. A dead agent removes nothing: Consul's servers mark its
services critical after some seconds and keep them for 72 hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from threading import Event
from typing import Any, TypeVar

from registrator.backend import (
    ConfigError,
    Context,
    Rejected,
    SessionLost,
    Unavailable,
    require_known_options,
)
from registrator.model import Actual, Entry, Mark, Plan, Service

from ..common.batches import chunks
from . import registration as shape
from .api import Api
from .errors import Denied, NoAnswer, Refused, explain_denial
from .leftovers import INTERVAL, Leftovers
from .servers import Servers
from .settings import Endpoint, Settings
from .transport import WATCH, WORKERS

log = logging.getLogger("registrator.consul")

# Seconds. Consul raises a shorter delay to this.
_REAP_AFTER = 60.0

# The number of writes that wait for a thread at the same time. Each takes memory.
_AT_ONCE = 500

# The start of the ids of the services that represent owners.
_OWNERS = "registrator:"

_RULES = (
    'the token needs service_prefix "" { policy = "write" } and agent_prefix "" { policy = "read" }'
)

T = TypeVar("T")


class ConsulBackend:
    """Uses one Consul agent at a time, out of the addresses of a URI."""

    def __init__(self, context: Context) -> None:
        uri = context.uri
        unix = uri.scheme == "consul-unix"
        require_known_options(uri)
        if not unix and uri.path not in ("", "/"):
            raise ConfigError("consul:// takes no path; for the key-value store use consulkv://")
        settings = Settings.read(context, uri.path if unix else "")
        self._owner = context.identity.owner
        self._ttl = context.ttl
        self._ttl_refresh = context.ttl_refresh
        self._owner_id = _OWNERS + self._owner
        self._servers = Servers(uri, settings, log, need_leader=False)
        self._leftovers = Leftovers(uri, self._owner, self._servers.api, settings.timeout, log)
        self._pool = ThreadPoolExecutor(WORKERS, "consul")
        self._last: Endpoint | None = None
        self._owner_stands = False
        self._refresh_due = True
        # Checks whose ids we would not give to a check of their service, with the service's id.
        self._foreign_checks: dict[str, str] = {}
        # The cache holds what was logged, so that each attribute is logged once.
        self._warn_once = lru_cache(1024)(partial(_warn_left_out, str(uri)))

    @property
    def keepalive_interval(self) -> float | None:
        """At most one second without ``-ttl``, to notice soon that an agent restarted."""
        if self._ttl and self._refresh_due and self._servers.current:
            return 0.0
        if self._ttl and not self._leftovers:
            return self._ttl_refresh
        return min(INTERVAL if self._leftovers else WATCH, self._ttl_refresh or WATCH)

    def entry(self, service: Service) -> Entry:
        """The service's id, and the content that the agent would give back for it."""
        shape.require_unicode(service)
        shape.require_legal_id(service.id)
        if service.id.startswith(_OWNERS):
            raise Rejected(f"ids that start with {_OWNERS} are reserved for Registrator")
        body = self._body(service)
        _, left_out = shape.meta(service, self._owner)
        if left_out:
            self._warn_once(service.container_name, service.id, tuple(left_out))
        return Entry(service.id, shape.content(body, shape.check_ids(body)), service)

    def list(self) -> Mapping[str, Actual]:
        """Every service of the agent in use, whoever registered it."""
        services, checks = self._call(lambda api: (api.services(), api.checks()), listing=True)
        if self._ttl:
            own = checks.get(shape.check_id(self._owner_id), {})
            self._owner_stands = services.pop(self._owner_id, None) is not None and bool(own)
            self._refresh_due = own.get("Status") != "passing"
        self._foreign_checks = shape.foreign(checks)
        return {key: self._actual(key, service, checks) for key, service in services.items()}

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Register, then deregister, `WORKERS` at a time: Consul takes one service per request.

        An answer of 400, or of 500 without trouble in the cluster, rejects only its service. So
        does a right that the token lacks for one service. An unknown token stops everything.
        A service is also rejected if its check would replace a check of another service.
        """
        if plan.register and self._ttl and self._refresh_due:
            self._refresh()
        wanted = {entry.key: entry.service for entry in plan.register}
        taken = {key: why for key, service in wanted.items() if (why := self._taken(service))}
        keys = tuple(key for key in wanted if key not in taken)
        rejected = self._call(
            lambda api: self._each(lambda key: api.register(self._body(wanted[key])), keys)
        )
        return (
            taken
            | rejected
            | self._call(lambda api: self._each(lambda key: _deregister(api, key), plan.deregister))
        )

    def keepalive(self) -> None:
        """Renew the TTL check, and look for our copies at other agents.

        Without ``-ttl``, this asks whether the agent is alive, if there is another address to
        move to. That takes one request. A closed connection is noticed without a request.
        """
        api = self._servers.current
        if api is None:
            return
        if self._ttl:
            self._refresh()
        elif api.http.dropped():
            self._call(Api.ping)
            raise SessionLost(f"{api.endpoint} closed the connection; it may have restarted")
        elif len(self._servers.known) > 1:
            self._call(Api.ping)
        self._leftovers.look(api.node_id, self._pool)

    def close(self) -> None:
        """Close the connections and leave the services standing."""
        self._servers.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, function: Callable[[Api], T], listing: bool = False) -> T:
        """Make one call to the agent in use. Raises `SessionLost` after a move to another agent.

        Only a listing may be the first call to an agent that replaces another one.
        """
        with explain_denial(_RULES):
            api = self._servers.current or self._connected(self._servers.use(), listing)
            try:
                return function(api)
            except NoAnswer as error:
                moved = self._servers.move(error, already_logged=True)
                self._connected(moved, True)
                raise SessionLost(f"moved to {moved.endpoint} ({error})") from error

    def _connected(self, api: Api, listing: bool) -> Api:
        """Note a new connection."""
        left, self._last = self._last, api.endpoint
        changed = left is not None and left != api.endpoint
        self._leftovers.moved(left if changed else None, api.endpoint, self._servers.known)
        if changed and not listing:
            raise SessionLost(f"moved to {api.endpoint} ({left} failed)")
        return api

    def _each(self, write: Callable[[str], None], keys: Sequence[str]) -> dict[str, str]:
        """Write all keys concurrently and return the rejected ones. A dead agent ends it."""
        failed = Event()

        def one(key: str) -> str | None:
            try:
                if not failed.is_set():
                    write(key)
            except Denied as error:
                if not error.unknown:
                    return f"permission denied: {error}; {_RULES}"
                failed.set()
                raise
            except Refused as error:
                return error.reason or str(error)
            except Unavailable:
                failed.set()
                raise
            return None

        if len(keys) == 1:
            results = [one(keys[0])]
        else:
            results = []
            for some in chunks(keys, _AT_ONCE):
                futures = [self._pool.submit(one, key) for key in some]
                wait(futures)
                results += [future.result() for future in futures]
        return {key: reason for key, reason in zip(keys, results, strict=True) if reason}

    def _refresh(self) -> None:
        """Renew the owner's TTL check, or register it if it is missing."""
        if not self._owner_stands:
            self._call(lambda api: api.register(self._owner_body()))
            self._owner_stands, self._refresh_due = True, False
            return
        try:
            self._call(lambda api: api.agent.check.ttl_pass(shape.check_id(self._owner_id)))
        except Refused as error:
            self._owner_stands, self._refresh_due = False, True
            raise SessionLost(f"the owner's TTL check is gone: {error}") from error
        self._refresh_due = False

    def _taken(self, service: Service) -> str:
        """Why the service's checks cannot be registered. Empty if they can."""
        ids = shape.possible_check_ids(service.id) & self._foreign_checks.keys()
        if not ids:
            return ""
        for each in ids.intersection(shape.check_ids(self._body(service))):
            owner = self._foreign_checks[each] or "the node"
            return f"the id of its check, {each!r}, belongs to a check of {owner}"
        return ""

    def _body(self, service: Service) -> dict[str, Any]:
        """The body of the request that registers a service. Raises `Rejected`."""
        body: dict[str, Any] = {
            "ID": service.id,
            "Name": service.name,
            "Address": service.address,
            "Port": service.port,
            "Tags": service.tags,
            "Meta": shape.meta(service, self._owner)[0],
        }
        if check := shape.check(service):
            body["Check"] = check
        if self._ttl:
            alias = {"AliasService": self._owner_id, "Name": "Registrator on its host is alive"}
            body["Checks"] = [alias | {"CheckID": shape.alias_id(service.id)} | self._lifetime()]
        return body

    def _owner_body(self) -> dict[str, Any]:
        """The body for the service whose TTL check all others follow."""
        check = {"CheckID": shape.check_id(self._owner_id), "Name": "Registrator is alive"}
        return {
            "ID": self._owner_id,
            "Name": "registrator",
            "Meta": {shape.OWNER: self._owner},
            "Check": check | {"TTL": f"{self._ttl:.3f}s"} | self._lifetime(),
        }

    def _lifetime(self) -> dict[str, str]:
        after = f"{max(self._ttl, _REAP_AFTER):.3f}s"
        return {"Status": "passing", "DeregisterCriticalServiceAfter": after}

    def _actual(self, key: str, service: Mapping[str, Any], checks: Mapping[str, Any]) -> Actual:
        """The entry for a service that the agent lists."""
        owner = (service.get("Meta") or {}).get(shape.OWNER)
        mark = Mark.OURS if owner == self._owner else Mark.OTHERS if owner else Mark.NONE
        ours = [i for i in shape.possible_check_ids(key) if i in checks]
        content = shape.content(service, ours)
        return Actual(content, mark, id=key, address=service.get("Address") or "")


def _deregister(api: Api, key: str) -> None:
    """Remove a service. Newer Consul versions answer 404 if it is already gone."""
    try:
        api.agent.service.deregister(key)
    except Refused as error:
        if error.status != 404:
            raise


def _warn_left_out(uri: str, container: str, service_id: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        log.warning(
            "%s: container %s, service %s: Consul's Meta cannot hold the attribute %.150r "
            "(64 pairs, keys A-Z a-z 0-9 _ - up to 128, values up to 512 bytes); left out",
            uri, container, service_id, key,
        )  # fmt: skip
