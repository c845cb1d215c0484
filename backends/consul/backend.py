"""Services at a Consul agent: the schemes ``consul``, ``consul-tls`` and ``consul-unix``.

An entry's key is the service id. The Meta keys ``registrator-owner`` and ``registrator-host`` mark
a service as ours. So the next process also recognizes a service whose name and id the user chose.

A registration belongs to the agent that took it. When a call finds its agent dead, it moves to
the next address that works and raises `SessionLost`. The caller then lists there and writes what
is missing. The copies at the former agent are removed when that agent answers (see `leftovers`).
An agent that is only busy is not left for a while (see `_ask`). After a move the first address is
used again when it has been well for some minutes (see `failback`).

With ``-ttl``, one request per refresh keeps all services passing (see `lifetime`). If the agent is
dead, Consul's servers mark its services critical after some seconds, and keep them for 72 hours.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from sys import intern
from typing import Any, TypeVar

from registrator.backend import ConfigError, Context, Rejected, SessionLost, require_known_options
from registrator.model import Actual, Entry, Mark, Plan, Service

from . import container_health
from . import registration as shape
from .api import Api
from .concurrent import Writers
from .errors import Leaderless, NoAnswer, explain_denial
from .failback import Home
from .left_out import warner
from .leftovers import INTERVAL, Leftovers
from .lifetime import OWNERS, Lifetime
from .removals import Removals
from .servers import Servers
from .settings import Endpoint, Settings
from .standing import Standing
from .token_mark import TokenMark
from .transport import WATCH

log = logging.getLogger("registrator.consul")

# Seconds for which an agent may answer that it cannot serve now, before another one is used.
BUSY = 10.0
_RULES = (
    'the token needs service_prefix "" { policy = "write" } and agent_prefix "" { policy = "read" }'
)

T = TypeVar("T")


class ConsulBackend:
    """Uses one Consul agent at a time, out of the addresses of a URI."""

    any_thread = True
    per_address = True
    shows_health = True

    def __init__(self, context: Context) -> None:
        uri = context.uri
        unix = uri.scheme == "consul-unix"
        require_known_options(uri)
        if not unix and uri.path not in ("", "/"):
            raise ConfigError("consul:// takes no path; for the key-value store use consulkv://")
        settings = Settings.read(context, uri.path if unix else "")
        self._uri = str(uri)
        self._identity = context.identity
        self._wake = context.wake
        self._servers = Servers(uri, settings, log, need_leader=False, serves=context.serves)
        api = self._servers.api
        self._token = settings.token
        self._token_mark = TokenMark(settings.token)
        self._lifetime = Lifetime(context, self._servers.spare) if context.ttl else None
        self._interval = context.ttl_refresh if context.ttl else WATCH
        self._writers = Writers(_RULES)
        self._removals = Removals(self._identity)
        self._leftovers = Leftovers(
            uri, self._identity, api, settings.timeout, log, self._wake, self._removals
        )
        self._home = Home(api)
        self._last: Endpoint | None = None
        # On the monotonic clock: the last keep-alive, the first answer "busy".
        self._kept = 0.0
        self._busy_since: float | None = None
        self._all_written = False  # whether a whole plan was written since the connection
        self._look_due = False  # whether copies at other agents may go since the last keep-alive
        self._standing = Standing()
        self._warn_once = warner(self._uri)

    @property
    def keepalive_interval(self) -> float | None:
        """At most one second without ``-ttl``, to notice soon that an agent restarted."""
        due = self._look_due or (self._lifetime and self._lifetime.due)
        if due and self._servers.current:
            return 0.0
        if not self._leftovers:
            return self._interval
        return min(self._interval, max(INTERVAL, self._leftovers.due - self._kept))

    def entry(self, service: Service) -> Entry:
        """The service's id, and the content that the agent would give back for it."""
        shape.require_unicode(service)
        shape.require_legal_id(service.id)
        if service.id.startswith(OWNERS):
            raise Rejected(f"ids that start with {OWNERS} are reserved for Registrator")
        body = self._body(service)
        if left_out := shape.meta(service, {})[1]:
            self._warn_once(service.container_name, service.id, tuple(left_out))
        status = container_health.status(service)
        return Entry(service.id, shape.planned(body), service, status=status)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every service of the agent in use, whoever registered it, and our copies elsewhere.

        A copy is shown only if the agent in use had the time to get the original.
        """

        def read(api: Api) -> tuple[dict[str, Any], dict[str, Any]]:
            self._token_mark.read(api)
            return shape.known(api.services(), keys), api.checks()

        services, checks = self._call(read, listing=True)
        if self._lifetime:
            self._lifetime.listed(services, checks, self._token_mark.value)
            services.pop(self._lifetime.id, None)
        self._standing.listed(services, checks)
        found = {key: self._actual(key, service) for key, service in services.items()}
        ours = {key for key, actual in found.items() if actual.mark is Mark.OURS}
        self._standing.ours = {key: intern(services[key]["Service"]) for key in ours}
        self._standing.outdated = {k: shape.again(services[k]) for k in ours if not found[k].held}
        self._standing.health.stand_with(found, ours)
        self._standing.token = token = self._token_mark.value
        if self._last in self._removals.endpoints(token):
            self._call(lambda api: self._removals.redo(api, services, token))
        # Another host's owner is none of our business. It ends by itself.
        entries = {k: a for k, a in found.items() if k in ours or not k.startswith(OWNERS)}
        copies = self._leftovers.undecided(services.keys()) if self._all_written else frozenset()
        self._leftovers.shown(copies)
        self._all_written = True
        return entries | {key: Actual("", held=False, id=key) for key in copies}

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Register, then deregister, several at a time: Consul takes one service per request.

        An answer of 400, or of 500 without trouble in the cluster, rejects only its service. So
        does a right that the token lacks for one service. An unknown token stops everything.
        A service is also rejected if its check would replace a check of another service.
        """
        self._all_written = False
        if plan.register:
            self._call(self._prepare)
        wanted, standing = {entry.key: entry for entry in plan.register}, self._standing
        rejected = {
            key: why
            for key, entry in wanted.items()
            if standing.disputes(key) and (why := standing.taken(self._body(entry.service)))
        }
        keys = [key for key in wanted if key not in rejected]

        def write(api: Api, key: str) -> None:
            standing.write(api, wanted[key], self._body(wanted[key].service))

        rejected |= self._each(write, keys)
        going = {key: self._standing.ours.get(key, "") for key in plan.deregister}
        self._removals.note(self._last, going, self._standing.token)
        rejected |= self._each(self._standing.deregister, plan.deregister)
        unwanted = set(plan.deregister) - rejected.keys()
        self._look_due = self._leftovers.decided(wanted.keys(), unwanted)
        self._all_written = True
        return rejected

    def keepalive(self) -> None:
        """Renew the TTL check, look at its followers, and at our copies at other agents.

        Without ``-ttl``, this asks whether the agent is alive, if there is another address to
        move to. That takes one request. A closed connection is noticed without a request.
        """
        api = self._servers.current
        if api is None:
            return
        self._kept, self._look_due = time.monotonic(), False
        self._token.reload(self._token.value)
        if self._lifetime:
            self._refresh(self._lifetime)
        elif api.http.dropped():
            self._ask(Api.ping)
            raise SessionLost(f"{api.endpoint} closed the connection; it may have restarted")
        elif len(self._servers.known) > 1:
            self._ask(Api.ping)
        self._notice_token()
        self._notice_doubts()
        standing = self._standing.checks.keys()
        self._leftovers.look(api.node_id, self._writers.pool, standing, self._token_mark.value)
        if self._all_written and self._leftovers.are_news(standing):
            self._wake()
        if self._home.calls(api.node_id, self._writers.pool):
            self._connected(self._servers.go_home(), True)
            self._wake()

    def close(self) -> None:
        """Close the connections and leave the services standing."""
        if self._lifetime:
            self._lifetime.stop()
        self._servers.close()
        self._writers.close()

    def _call(self, function: Callable[[Api], T], listing: bool = False) -> T:
        """Make one call to the agent in use, as `_ask`, and note that it serves."""
        result = self._ask(function, listing)
        self._busy_since = None
        self._notice_token()
        return result

    def _ask(self, function: Callable[[Api], T], listing: bool = False) -> T:
        """Make one call to the agent in use. Raises `SessionLost` after a move to another agent.

        Only a listing may be the first call to an agent that replaces another one. An agent that
        answers that it is busy, or knows no leader, keeps our services. So it is not left at once:
        the caller's next attempt goes to it again.
        """
        with explain_denial(_RULES):
            api = self._servers.current or self._connected(self._servers.use(), listing)
            try:
                return function(api)
            except NoAnswer as error:
                if isinstance(error, Leaderless) and self._waits_for(api):
                    raise
                moved = self._servers.move(error, already_logged=True)
                self._connected(moved, True)
                raise SessionLost(f"moved to {moved.endpoint} ({error})", moved=True) from error

    def _waits_for(self, api: Api) -> bool:
        """Whether to stay with an agent that cannot serve now."""
        now = time.monotonic()
        self._busy_since = self._busy_since or now
        return self._servers.known == [api.endpoint] or now - self._busy_since < BUSY

    def _connected(self, api: Api, listing: bool) -> Api:
        """Note a new connection."""
        left, self._last = self._last, api.endpoint
        changed = left is not None and left != api.endpoint
        self._leftovers.moved(
            left if changed else None, self._standing.ours, api.endpoint, self._servers.known
        )
        self._home.moved(api.endpoint, self._servers.known[0])
        self._token_mark.forget()
        self._busy_since = None
        if changed:
            self._all_written = False
            self._standing = Standing()
            if self._lifetime:
                self._lifetime.lost()
        if changed and not listing:
            raise SessionLost(f"moved to {api.endpoint} ({left} failed)")
        return api

    def _notice_token(self) -> None:
        """Have everything registered again if the token has changed. It depends on the old one."""
        if self._token_mark.changed():
            log.info("%s: the token has changed; registering everything with it", self._uri,
                     extra={"registry": self._uri})  # fmt: skip
            self._token_mark.forget()
            self._wake()

    def _notice_doubts(self) -> None:
        """Have done again what another token did: removals, and the comparison of entries."""
        token = self._token_mark.value
        self._removals.settle(token)
        self._leftovers.owe(self._removals.endpoints(token) - {self._last})
        compared = token in (None, self._standing.token) or not self._all_written
        if not compared or self._last in self._removals.endpoints(token):
            self._wake()

    def _prepare(self, api: Api) -> None:
        """Prepare registrations: read the mark of the token, and renew the TTL check."""
        self._token_mark.read(api)
        if self._lifetime and self._lifetime.due:
            self._lifetime.renew(api, self._token_mark.value)

    def _refresh(self, lifetime: Lifetime) -> None:
        """Renew the owner's TTL check. Keep Consul from removing what follows it."""
        followers = self._standing.followers()

        def renew(api: Api) -> Sequence[str]:
            lifetime.renew(api, self._token_mark.value)
            return lifetime.critical(api, followers) if followers else ()

        critical = self._call(renew)
        for key, why in self._each(lifetime.restart, critical).items():
            log.warning("%s: %s stays critical and will be removed: %s", self._uri, key, why,
                        extra={"registry": self._uri, "service_id": key})  # fmt: skip
        if critical:
            self._call(lambda api: lifetime.evaluate(api, self._token_mark.value))

    def _each(self, write: Callable[[Api, str], None], keys: Sequence[str]) -> dict[str, str]:
        """Write all keys and return the rejected ones, with the reasons."""
        return self._call(lambda api: self._writers.each(partial(write, api), keys)) if keys else {}

    def _body(self, service: Service) -> dict[str, Any]:
        """The body of the request that registers a service. Raises `Rejected`."""
        body = shape.body(service, shape.marks(self._identity, self._token_mark.value))
        if self._lifetime:
            body["Checks"].append(self._lifetime.alias(service.id))
        return body

    def _actual(self, key: str, service: Mapping[str, Any]) -> Actual:
        checks, status = self._standing.checks[key], self._standing.health.of(key)
        return shape.actual(key, service, checks, self._identity, self._token_mark.value, status)
