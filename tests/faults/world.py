"""The common parts of the clusters of all kinds of registry, and their faults.

The agents reach the members through proxies, so that a connection can be cut or go mute while
its server lives. The tests' own eyes look at the members directly. The proxies take TLS too.
"""

from __future__ import annotations

import abc
import contextlib
import http.client
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from support.servers import Server
from support.tls_proxy import TLSProxy
from support.wait import until

from faults.certificates import SHORT, Certificates

READ_ERRORS = (
    OSError,
    http.client.HTTPException,
    KazooException,
    KazooTimeoutError,
    ValueError,
    KeyError,
)

Record = tuple[str, str, int]

# An entry that somebody else keeps beside ours, and the id of each entry that is not the agents'.
STRANGER = "postgres"
STRANGERS_ADDRESS = "127.9.9.9"

# What a registry says that has too much to do, or none to lead it.
BUSY = {
    "busy": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    "leaderless": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


def first(calls: Sequence[Callable[[], Any]]) -> Any:
    """The result of the first call that works. Raises what the last one raised."""
    for call in calls[:-1]:
        with contextlib.suppress(*READ_ERRORS):
            return call()
    return calls[-1]()


class World(abc.ABC):
    """A cluster: `members` fail one by one, `proxies` lead to those that the agents are given.

    The proxies listen at `ip`. `options` are the agents', `clones_options` the clone's alone, and
    `rest` is the end of their URIs. `tls` names their variables for TLS. `secret` is the file that
    holds their password or token. `losses` are the faults that also take the stranger's entry.
    """

    name: str
    options: Sequence[str] = ()
    clones_options: Sequence[str] = ()
    rest = "?timeout=1"
    tls: tuple[str, str, str]
    member_kinds: tuple[str, ...] = ("kill", "freeze")
    proxy_kinds: tuple[str, ...] = ("cut", "mute")
    world_kinds: tuple[str, ...] = ("partition", "wipe", "outage", "reset", "edit", "delete")
    secret_kinds: tuple[str, ...] = ()
    losses: tuple[str, ...] = ("wipe", "reset")

    # Seconds after the last fault within which all must agree.
    settled = 5.0

    def __init__(
        self, members: Sequence[Server], addresses: Sequence[str], folder: Path, ip: str
    ) -> None:
        self.members = list(members)
        self.readers = list(members)  # those that are asked what stands
        self.certificates = Certificates(folder / "certificates")
        authority = self.certificates.authority
        self.proxies = [TLSProxy(address, ip, authority) for address in addresses]
        self.secret = folder / "secret"
        self.port = 5432  # the stranger's

    def uri(self, secure: bool) -> str:
        """The URI that leads an agent through the proxies."""
        addresses = ",".join(p.tls_address if secure else p.address for p in self.proxies)
        return f"{self.name}{'-tls' if secure else ''}://{addresses}{self.rest}"

    def environ(self) -> dict[str, str]:
        """The agents' variables for TLS and login."""
        return self.certificates.environ(*self.tls)

    def guard(self) -> None:
        """Have the agents log in from now on, with a secret that is good."""
        until(self.guarded, "a login", ignore=READ_ERRORS)

    def guarded(self) -> bool:
        """Put a good secret into the file, if there is none. May fail."""
        return True

    def write_secret(self, secret: str) -> None:
        """Replace the file at once, as operators should."""
        written = self.secret.with_suffix(".new")
        written.write_text(secret)
        written.replace(self.secret)

    @abc.abstractmethod
    def entries(self) -> list[Record]:
        """Id, address and port of all that stands there, doubles included. May fail."""

    def ours(self) -> list[Record]:
        """The entries without the stranger's. May fail."""
        return [record for record in self.entries() if record[0] != STRANGER]

    def details(self) -> str:
        """More facts about why the registry holds what it holds. It may fail."""
        return ""

    @abc.abstractmethod
    def wipe(self) -> None:
        """Delete all entries behind the agent's back."""

    @abc.abstractmethod
    def plant(self) -> None:
        """Write the stranger's entry with his `port`. May fail."""

    @abc.abstractmethod
    def uproot(self) -> None:
        """Delete the stranger's entry. May fail."""

    @abc.abstractmethod
    def strangers(self) -> object:
        """The stranger's entry with all that the registry says of it, or nothing. May fail."""

    @abc.abstractmethod
    def spoil(self, service_id: str, kind: str) -> None:
        """Somebody edits or deletes one of our entries. May fail."""

    @abc.abstractmethod
    def serves(self) -> bool:
        """Whether the cluster takes writes. May fail."""

    def leads(self, member: Server) -> bool:
        """Whether a member is the cluster's leader."""
        raise NotImplementedError

    def serves_agent(self, member: Server) -> bool:
        """Whether the agent's connection is to this member, where it can't be chosen."""
        return True

    def targets(self) -> dict[str, tuple[str, ...]]:
        """The faults that this world can have."""
        found = {f"member {i}": self.member_kinds for i in range(len(self.members))}
        found |= {f"proxy {i}": self.proxy_kinds for i in range(len(self.proxies))}
        found |= {"secret": self.secret_kinds} if self.secret_kinds else {}
        return found | {"cluster": self.world_kinds, "certificates": ("expire",)}

    def begin(self, target: str, kind: str) -> None:
        """Let a fault begin."""
        what, _, number = target.partition(" ")
        if what == "member":
            self.break_member(self.members[int(number)], kind)
        elif what == "proxy":
            proxy = self.proxies[int(number)]
            if kind in BUSY:
                proxy.instead = BUSY[kind]
            else:
                proxy.cut() if kind == "cut" else proxy.freeze()
        elif what == "certificates":
            self.certificates.renew(self.proxies, SHORT)
        elif what == "secret":
            with contextlib.suppress(*READ_ERRORS):
                self.begin_rotation(kind)
        else:
            self._begin_cluster(kind)

    def break_member(self, member: Server, kind: str) -> None:
        """Kill or freeze a member."""
        if member.running:
            member.kill() if kind == "kill" else member.freeze()

    def begin_rotation(self, kind: str) -> None:
        """Begin to replace the agents' secret. May fail."""
        raise NotImplementedError

    def end_rotation(self, kind: str) -> None:
        """Replace it to the end. May fail."""
        raise NotImplementedError

    def _begin_cluster(self, kind: str) -> None:
        if kind == "partition":
            for proxy in self.proxies:
                proxy.freeze()
        elif kind == "wipe":
            with contextlib.suppress(*READ_ERRORS):
                self.wipe()
        elif kind in ("edit", "delete"):
            with contextlib.suppress(*READ_ERRORS):
                for service_id, _, _ in self.ours()[:2]:
                    self.spoil(service_id, kind)
        else:
            for member in self.members:
                member.kill()
                if kind == "reset":
                    member.wipe()

    def end(self, target: str, kind: str) -> None:
        """Let a fault end."""
        what, _, number = target.partition(" ")
        if what == "member":
            self._revive([self.members[int(number)]])
        elif what == "proxy":
            self.proxies[int(number)].instead = b""
            self.proxies[int(number)].thaw()
        elif what == "certificates":
            self.certificates.renew(self.proxies)
        elif what == "secret":
            with contextlib.suppress(*READ_ERRORS):
                self.end_rotation(kind)
        elif kind == "partition":
            for proxy in self.proxies:
                proxy.thaw()
        elif kind in ("outage", "reset"):
            self._revive(self.members)

    def _revive(self, members: Sequence[Server]) -> None:
        for member in members:
            if member.running:
                member.thaw()
            else:
                member.launch()

    def heal(self) -> None:
        """End all faults. Returns once the cluster takes writes."""
        for proxy in self.proxies:
            proxy.instead = b""
            proxy.thaw()
        self._revive(self.members)
        for member in self.members:
            member.wait_ready()
        until(self.serves, f"{self.name} serves", ignore=READ_ERRORS)
        self.certificates.renew(self.proxies)
        if self.secret.exists():
            self.guard()

    def remove(self) -> None:
        """Stop everything."""
        for proxy in self.proxies:
            proxy.close()
        for member in self.members:
            member.remove()
