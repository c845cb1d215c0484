"""The addresses of one Consul URI: which of them is used, and the pass over the others."""

from __future__ import annotations

import logging

from registrator.backend import Unavailable

from .consul_http import Api, Client, Denied, Leaderless, NoAnswer
from .consul_settings import Endpoint, Settings, resolve


class Servers:
    """Stays with the address that works; home, the first of the URI, is tried first.

    A host name counts as all the addresses that it has at the moment of a (re)connect. With
    `need_leader` a server that knows no leader does not count as working; otherwise one is taken
    only where all are so: an agent keeps registrations even while its cluster elects.
    """

    def __init__(self, settings: Settings, log: logging.Logger, need_leader: bool) -> None:
        self._settings = settings
        self._log = log
        self._need_leader = need_leader
        self.current: Api | None = None
        self.known: list[Endpoint] = []

    def api(self, endpoint: Endpoint, timeout: float | None = None) -> Api:
        """The API of one server; no connection is opened yet."""
        return Api(Client(self._settings, endpoint, timeout or self._settings.timeout))

    def use(self) -> Api:
        """The server in use, or a newly connected one; raises `Unavailable` after one pass."""
        return self.current or self._connect(None, [])

    def move(self, error: NoAnswer) -> Api:
        """Leave the server that failed for the next that works; `Unavailable` where none does."""
        left = self.current.endpoint if self.current else None
        self.close()
        return self._connect(left, [str(error)])

    def close(self) -> None:
        """Let go of the server in use."""
        if self.current:
            self.current.http.close()
        self.current = None

    def endpoints(self, failures: list[str]) -> list[Endpoint]:
        """Every address of the URI as names resolve now; what fails is added to `failures`."""
        if self._settings.socket_path:
            return [Endpoint(self._settings.socket_path, "", 0)]
        found: dict[Endpoint, None] = {}
        for address in self._settings.addresses:
            try:
                found.update(dict.fromkeys(resolve(address, self._settings.timeout)))
            except OSError as error:
                failures.append(str(error))
        return list(found)

    def _connect(self, left: Endpoint | None, failures: list[str]) -> Api:
        endpoints = self.known = self.endpoints(failures)
        if left in endpoints:
            start = endpoints.index(left)
            endpoints = endpoints[start + 1 :] + endpoints[:start]
        leaderless: Api | None = None
        for endpoint in endpoints:
            api = self.api(endpoint)
            try:
                leader = api.status.leader()
            except Denied:
                raise
            except Leaderless:
                leader = ""
            except Unavailable as error:
                failures.append(str(error))
                api.http.close()
                continue
            if leader:
                self._log.info("connected to Consul at %s, current leader %s", endpoint, leader)
                self.current = api
                return api
            failures.append(f"{endpoint} knows no cluster leader")
            leaderless = leaderless or api
        if leaderless is None or self._need_leader:
            raise Unavailable("; ".join(failures))
        self._log.warning("connected to Consul at %s, which has no leader now", leaderless.endpoint)
        self.current = leaderless
        return leaderless
