"""The addresses of one Consul URI: which of them is used, and the pass over the others."""

from __future__ import annotations

import logging

from registrator.backend import Unavailable
from registrator.uri import RegistryURI

from ..common.in_use import InUse
from .api import Api
from .errors import Cut, Denied, Leaderless, NoAnswer, Refused
from .settings import Endpoint, Settings, endpoints
from .transport import Client


class Servers:
    """Stays with the address that works; home, the first of the URI, is tried first.

    A host name counts as all the addresses that it has at the moment of a (re)connect. With
    `need_leader` a server that knows no leader does not count as working; otherwise one is taken
    only where all are so: an agent keeps registrations even while its cluster elects.
    """

    def __init__(
        self, uri: RegistryURI, settings: Settings, log: logging.Logger, *, need_leader: bool
    ) -> None:
        self._name = str(uri)
        self._settings = settings
        self._log = log
        self._in_use = InUse(uri, log)
        self._need_leader = need_leader
        self.current: Api | None = None
        self.known: list[Endpoint] = []

    def api(self, endpoint: Endpoint, timeout: float | None = None) -> Api:
        """The API of one server; no connection is opened yet."""
        return Api(Client(self._settings, endpoint, timeout or self._settings.timeout))

    def use(self) -> Api:
        """The server in use, or a newly connected one; raises `Unavailable` after one pass."""
        return self.current or self._connect(None, [])

    def move(self, error: NoAnswer, *, told: bool = False) -> Api:
        """Leave the server that failed for the next that works; `Unavailable` where none does.

        A move that the caller raises an error of is `told`.
        """
        left = self.current.endpoint if self.current else None
        self.close()
        return self._connect(left, [str(error)], told)

    def close(self) -> None:
        """Let go of the server in use."""
        if self.current:
            self.current.http.close()
        self.current = None

    def _endpoints(self, failures: list[str]) -> list[Endpoint]:
        """Every address of the URI as names resolve now; what fails is added to `failures`."""
        if self._settings.socket_path:
            return [Endpoint(self._settings.socket_path, "", 0)]
        found: dict[Endpoint, None] = {}
        for address in self._settings.addresses:
            try:
                found.update(dict.fromkeys(endpoints(address, self._settings.timeout)))
            except OSError as error:
                failures.append(str(error))
        return list(found)

    def _connect(self, left: Endpoint | None, failures: list[str], told: bool = False) -> Api:
        why = "; ".join(failures)
        known = self.known = self._endpoints(failures)
        if left in known:
            start = known.index(left)
            known = known[start + 1 :] + known[:start]
        leaderless: Api | None = None
        for endpoint in known:
            api = self.api(endpoint)
            try:
                leader = api.status.leader()
            except Denied:
                raise
            except Leaderless:
                leader = ""
            except Unavailable as error:
                failures.append(f"{error}{_doubt(error)}")
                api.http.close()
                continue
            if leader:
                self._use(api, f"current leader {leader}", why, told)
                return api
            failures.append(f"{endpoint}: it knows no cluster leader")
            leaderless = leaderless or api
        if leaderless is None or self._need_leader:
            raise Unavailable("; ".join(failures))
        self._log.warning("%s: %s knows no cluster leader now", self._name, leaderless.endpoint)
        self._use(leaderless, "without a leader", why, told)
        return leaderless

    def _use(self, api: Api, details: str, why: str, told: bool) -> None:
        self.current = api
        self._in_use.connected(str(api.endpoint), details, why, told=told)


def _doubt(error: Unavailable) -> str:
    """What to ask where something answered the first question of all as no Consul does."""
    return " (is this Consul's HTTP port?)" if isinstance(error, Refused | Cut) else ""
