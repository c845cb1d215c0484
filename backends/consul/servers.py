"""The servers of one Consul URI: which one is in use, and the move to the next one."""

import logging
from collections.abc import Callable, Iterable

from registrator.backend import Unavailable
from registrator.uri import Address, RegistryURI, resolve

from ..common.in_use import InUse
from .api import Api
from .errors import Cut, Denied, Leaderless, NoAnswer, Refused
from .settings import Endpoint, Settings
from .transport import Client


class Servers:
    """Stays with the server that works. The first address of the URI is tried first.

    Another `order` of the addresses puts another one first. A host name means all addresses that it
    has when a connection is made. With `need_leader`, a
    server that knows no leader does not count as working. Without it, such a server is used only
    if no server knows a leader, because an agent keeps registrations during an election.
    """

    def __init__(
        self,
        uri: RegistryURI,
        settings: Settings,
        log: logging.Logger,
        *,
        need_leader: bool,
        order: Callable[[Iterable[Address]], list[Address]] = list,
        serves: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._name = str(uri)
        self._settings = settings
        self._log = log
        self._in_use = InUse(uri, log, serves)
        self._need_leader = need_leader
        self._order = order
        self.current: Api | None = None
        self.known: list[Endpoint] = []

    def api(self, endpoint: Endpoint, timeout: float | None = None) -> Api:
        """The API of one server. It opens no connection yet."""
        return Api(Client(self._settings, endpoint, timeout or self._settings.timeout))

    def spare(self) -> Api | None:
        """A second API of the server in use, for another thread. None if no server is in use."""
        current = self.current
        return self.api(current.endpoint) if current else None

    def use(self) -> Api:
        """The server in use, or a new one. Raises `Unavailable` if no server works."""
        return self.current or self._connect(None, [])

    def move(self, error: NoAnswer, *, already_logged: bool = False) -> Api:
        """Leave the failed server for the next one that works. Raises `Unavailable` if none does.

        `already_logged` means that the caller raises an error that names this move.
        """
        left = self.current.endpoint if self.current else None
        self.close()
        return self._connect(left, [str(error)], already_logged)

    def go_home(self) -> Api:
        """Leave the server in use for the first one that works. Raises `Unavailable`."""
        self.close()
        return self._connect(None, ["the first address is well again"])

    def close(self) -> None:
        """Close the connection to the server in use."""
        if self.current:
            self.current.http.close()
        self.current = None

    def _endpoints(self, failures: list[str]) -> list[Endpoint]:
        """Every address in order, as names resolve now. Adds what fails to `failures`."""
        if self._settings.socket_path:
            return [Endpoint(self._settings.socket_path, "", 0)]
        found: list[Endpoint] = []
        for address in self._order(self._settings.addresses):
            try:
                ips = self._order(resolve(address, self._settings.timeout))
                found += [Endpoint(address.host, ip.host, ip.port) for ip in ips]
            except OSError as error:
                failures.append(str(error))
        return list(dict.fromkeys(found))

    def _connect(
        self, left: Endpoint | None, failures: list[str], already_logged: bool = False
    ) -> Api:
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
                self._use(api, f"current leader {leader}", why, already_logged)
                return api
            failures.append(f"{endpoint}: it knows no cluster leader")
            leaderless = leaderless or api
        if leaderless is None or self._need_leader:
            raise Unavailable("; ".join(failures))
        self._log.warning(
            "%s: %s knows no cluster leader now; using it all the same",
            self._name, leaderless.endpoint,
            extra={"registry": self._name, "server": leaderless.endpoint},
        )  # fmt: skip
        self._use(leaderless, "without a leader", why, already_logged)
        return leaderless

    def _use(self, api: Api, details: str, why: str, already_logged: bool) -> None:
        self.current = api
        self._in_use.connected(str(api.endpoint), details, why, already_logged=already_logged)


def _doubt(error: Unavailable) -> str:
    """A hint for the operator, if the first answer did not look like Consul's."""
    known = isinstance(error, Refused) and error.reason.startswith("No path to datacenter")
    doubtful = isinstance(error, Refused | Cut) and not known
    return " (is this Consul's HTTP port?)" if doubtful else ""
