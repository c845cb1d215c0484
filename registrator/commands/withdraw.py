"""``registrator withdraw``: removes this host's entries, before the host goes for good.

The entries that carry this host's mark are removed: its owner and its hostname. An entry that names
no host counts if the agent would know it as this host's, by its id or its address. The entries of a
clone stay, and so do those that gliderlabs/registrator wrote.

An agent that runs would write the entries again. So the command refuses while it sees one (see
`registrator.system.presence`). It lists each registry once more at the end. So it also tells of an
agent that it cannot see and that writes at once.
"""

import contextlib
import os
import re
import socket
import threading
from contextlib import closing
from dataclasses import dataclass, field, replace

import click

from registrator.backend import Backend, BackendError, ConfigError, Context, SessionLost, listing
from registrator.config import Config
from registrator.engine.address import WrongVariables
from registrator.engine.client import DockerEngine, Engine
from registrator.identity import identify
from registrator.model import Actual, EngineUnavailable, Identity, Mark, Plan, unprintable
from registrator.registries import make_backend
from registrator.sync.plan import Here
from registrator.system import log as logs
from registrator.system.hostaddr import host_addresses
from registrator.system.presence import agent_is_here
from registrator.system.retry import retry
from registrator.uri import RegistryURI

DONE, LEFT, WRONG, UNREACHABLE = 0, 1, 2, 3

# Attempts at each registry, and the seconds between two of them.
ATTEMPTS, PAUSE = 3, 1.0

# One line names at most so many entries that stay.
MAX_NAMED = 20


def run(config: Config, owner: str = "", yes: bool = False) -> int:
    """Withdraw this host, or with `owner` what a former id of its engine left."""
    with logs.on_stderr("warning", config.log_format):
        try:
            identity = _identity(config, owner)
        except WrongVariables as error:
            return _complain(WRONG, str(error))
        except EngineUnavailable as error:
            return _complain(UNREACHABLE, f"the Docker engine does not answer: {error}")
        if agent_is_here(identity.owner, identity.hostname):
            return _complain(
                LEFT, "an agent of this host runs and would write the entries again: stop it first"
            )
        return _Withdrawal(config, identity, show=bool(owner) and not yes).run()


def _identity(config: Config, owner: str) -> Identity:
    """Who this host is, or was. Asks the engine only if nothing else tells."""
    unsure = not config.hostname and re.fullmatch("[0-9a-f]{12}", socket.gethostname())
    engine = Engine("", "", "")
    if unsure or not owner:
        with closing(DockerEngine(os.environ)) as client:
            engine = client.identify()
    found = identify(config, engine)
    return Identity(owner, found.hostname) if owner else found


def _complain(code: int, text: str) -> int:
    click.echo(f"registrator: {text}", err=True)
    return code


@dataclass
class _Found:
    """The entries of one registry: all keys of ours that were seen, and those that stand now.

    `refused` says why the registry does not remove a key. `others` are the hosts with our engine's
    id, and `unsure` the entries of our engine that name no host and may be another host's.
    """

    seen: set[str] = field(default_factory=set)
    standing: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)


class _Withdrawal:
    """The way through all registries. With `show`, nothing is removed."""

    def __init__(self, config: Config, identity: Identity, *, show: bool) -> None:
        self._config, self._identity, self._show = config, identity, show
        own = host_addresses() | ({config.ip} if config.ip else set())
        self._here = Here(identity.hostname, own, own)

    def run(self) -> int:
        """Do it, and return the exit code."""
        codes, gone, left = {DONE}, 0, 0
        for place in (place for uri in self._config.uris for place in self._places(uri)):
            found = _Found()
            try:
                self._work_at(place, found)
            except ConfigError as error:
                codes.add(_complain(WRONG, str(error)))
            except BackendError as error:
                codes.add(_complain(UNREACHABLE, f"{place}: {error}"))
            self._tell(place, found)
            gone += len(found.seen - found.standing)
            left += len(found.standing)
        entries = "1 entry" if gone + left == 1 else f"{gone + left} entries"
        if self._show and left:
            click.echo(f"{entries} of {self._identity.owner}: add -yes to remove them")
        else:
            click.echo(f"{entries} found, {gone} removed, {left} left")
        return max(codes | ({LEFT} if left else set()))

    def _places(self, uri: RegistryURI) -> list[RegistryURI]:
        """The URI, or one for each of its addresses if an entry belongs to the address."""
        alone = False
        with contextlib.suppress(ConfigError):  # The work at the place tells of it.
            with closing(make_backend(self._context(uri, 0, 0))) as backend:
                alone = bool(getattr(backend, "per_address", False))
        if not (alone and uri.addresses):
            return [uri]
        return [replace(uri, addresses=(address,)) for address in uri.addresses]

    def _context(self, uri: RegistryURI, ttl: float, ttl_refresh: float) -> Context:
        return Context(uri, self._identity, ttl, ttl_refresh, environ=os.environ)

    def _work_at(self, place: RegistryURI, found: _Found) -> None:
        """Remove what is ours at one place. Raises `BackendError`.

        With its ``-ttl``, etcd tells which lease the agent used. Without, Consul tells of the
        service that keeps the others alive, which has to go last.
        """
        lives = {(self._config.ttl, self._config.ttl_refresh): None, (0, 0): None}
        for life in lives:
            with closing(make_backend(self._context(place, *life))) as backend:
                self._patiently(backend, found)

    def _patiently(self, backend: Backend, found: _Found) -> None:
        failures = 0

        def failed(error: Exception) -> float:
            nonlocal failures
            failures += 1
            if failures == ATTEMPTS or isinstance(error, ConfigError):
                raise error
            return 0 if isinstance(error, SessionLost) else PAUSE

        retry(lambda: self._attempt(backend, found), BackendError, failed, threading.Event())

    def _attempt(self, backend: Backend, found: _Found) -> None:
        """List, remove, and list again."""
        self._look(backend, found)
        if found.standing and not self._show:
            going = Plan(deregister=tuple(sorted(found.standing)))
            found.refused |= backend.apply(going)
            self._look(backend, found)

    def _look(self, backend: Backend, found: _Found) -> None:
        listed = listing(backend, found.seen)
        found.standing = {key for key, actual in listed.items() if self._is_ours(actual)}
        found.seen |= found.standing
        others = {k: a for k, a in listed.items() if k not in found.standing}
        found.others = {a.host or "unknown" for a in others.values() if a.mark is Mark.TWIN}
        found.unsure = {key for key, a in others.items() if a.mark is Mark.UNTOLD}

    def _is_ours(self, actual: Actual) -> bool:
        """Whether an entry has this host's mark. An entry that names another host never has it."""
        return actual.mark is not Mark.TWIN and self._here.mark(actual) is Mark.OURS

    def _tell(self, place: RegistryURI, found: _Found) -> None:
        """Print one line for each entry that is gone, or stands."""
        for key in sorted(found.seen):
            if key not in found.standing:
                click.echo(f"{place}: removed {_shown(key)}")
            elif self._show:
                click.echo(f"{place}: {_shown(key)}")
            else:
                why = found.refused.get(key, "it stands: does an agent of this host still run?")
                _complain(LEFT, f"{place}: not removed {_shown(key)}: {why}")
        for host in sorted(found.others):
            _complain(
                LEFT, f"{place}: host {_shown(host)} has the same engine id: its entries stay"
            )
        if found.unsure:
            named = ", ".join(map(_shown, sorted(found.unsure)[:MAX_NAMED]))
            _complain(
                LEFT,
                f"{place}: {len(found.unsure)} entries of this engine name no host and may be"
                f" another host's, so they stay: {named}",
            )


def _shown(text: str) -> str:
    """Text of a registry, made fit for one line."""
    return ascii(text) if unprintable(text) else text
