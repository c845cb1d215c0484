"""Keys in Consul's key-value store: ``consulkv``, ``consulkv-tls`` and ``consulkv-unix``.

A service is the key ``<prefix>/<name>/<id>``. Its value is ``ip:port``, as in
gliderlabs/registrator, or the whole service with ``?value=json``. A plain value has no place for
an owner. So the key's flags contain a hash of the owner: 0 means that an entry has no mark, and
any other number belongs to somebody else (see `kv_owners`).

With ``-ttl``, one session locks every key. Consul deletes the keys when the session is not
renewed (see `kv_session`). Consul takes between one and two TTLs to end it. Keys of a predecessor
are released and locked in one transaction, so they are never missing.

A listing costs by this host's keys, and not by those of other hosts (see `kv_finder`). The manifest
names all keys that may be this host's, for the next start (see `kv_manifest`).

The store belongs to the whole cluster. If a call finds its server dead, it continues at the next
address, and nothing must be written again.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TypeVar

from registrator.backend import (
    ConfigError,
    Context,
    Rejected,
    require_known_options,
    require_port,
)
from registrator.model import Actual, Entry, Mark, Plan, Service
from registrator.uri import Address

from ..common.order import Order
from ..common.values import address_in, marks, wants_json
from .api import Api
from .errors import explain_denial
from .kv_finder import Finder
from .kv_keys import place, require_legal
from .kv_owners import Owners, facts
from .kv_session import SERVERS_RULES, Session, anywhere
from .kv_transaction import Stored, Write
from .kv_writer import Writer
from .servers import Servers
from .settings import Settings
from .transport import WATCH

log = logging.getLogger("registrator.consulkv")

MAX_VALUE = 256 * 1024

T = TypeVar("T")


class ConsulKVBackend:
    """``consulkv://[token@]host:port,…/prefix``. ``?value=json`` writes the whole service."""

    any_thread = True

    def __init__(self, context: Context) -> None:
        uri = context.uri
        require_known_options(
            uri, "value", "dc", *([] if uri.scheme.endswith("-unix") else ["order"])
        )
        self._json = wants_json(uri)
        if context.ttl and not 10 <= context.ttl <= 86400:
            raise ConfigError("Consul's sessions need a -ttl of 10 to 86400 s")
        socket_path, self._prefix = place(uri)
        self._name = str(uri)
        self._identity = context.identity
        self._owners = Owners(context.identity)
        self._ttl, self._read_only = context.ttl, context.read_only
        # At most a second, to notice a restarted server or an agent that left.
        self.keepalive_interval = min(WATCH, context.ttl_refresh) if context.ttl else WATCH
        self._wake_soon = context.wake_soon
        settings = Settings.read(context, socket_path)
        order = Order(context)
        self._session = Session(context, settings, order)
        self._servers = Servers(
            uri, settings, log, need_leader=True, order=order, serves=context.serves
        )
        self._finder = Finder(context.identity, self._prefix, self._call, self._actual)
        self._manifest = self._finder.manifest
        places = dict.fromkeys((self._prefix, self._manifest.root if self._prefix else ""))
        rights = [f'key_prefix "{each}" {{ policy = "write" }}' for each in places]
        rights += ['session_prefix "" { policy = "write" }'] if self._ttl else []
        rights += [SERVERS_RULES] if self._ttl and settings.dc else []
        self._rules = f"the token needs {' and '.join(rights)}"
        self._writer = Writer(
            self._finder.store, self._manifest, self._owners, self._session, self._actual,
            context.identity.hostname, self._rules,
        )  # fmt: skip
        self._told = False

    def entry(self, service: Service) -> Entry:
        """``<prefix>/<name>/<id>``. Name and id may be paths, as in the original.

        Raises `Rejected`.
        """
        require_port(service)
        key = f"{self._prefix}{service.name}/{service.id}"
        require_legal(key.removeprefix(self._prefix))
        if self._manifest.belongs(key):
            raise Rejected(f"the keys below {self._manifest.root} are the agents' own")
        content = str(Address(service.address, service.port))
        if self._json:
            content = json.dumps(service.record | marks(self._identity), sort_keys=True)
        if not content.isprintable():
            raise Rejected(f"the address {service.address[:80]!r} is not printable")
        if len(content) > MAX_VALUE:
            raise Rejected(f"the service takes {len(content)} bytes, more than {MAX_VALUE}")
        return Entry(key, content, service)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every key of this owner, those of gliderlabs/registrator's, and what stands at `keys`."""
        with self._warning():
            self._find(keys)
        return {key: self._actual(key, stored) for key, stored in self._finder.entries()}

    def _find(self, keys: Collection[str]) -> None:
        self._finder.find(keys)
        if self._ttl:
            found = [stored for _, stored in self._finder.entries()]
            sessions = {stored.session for stored in found if self._is_foreign(stored)}
            self._call(partial(self._session.learn_hosts, sessions=sessions))
        if not self._read_only:
            self._writer.complete(self._finder.ours())

    def _is_foreign(self, stored: Stored) -> bool:
        """Whether another process of our engine's holds the key."""
        return stored.session not in ("", self._session.id) and self._owners.are_ours(stored)

    def _actual(self, key: str, stored: Stored) -> Actual:
        mark, host = self._owners.mark(key, stored, self._session.host(stored.session))
        return Actual(
            stored.value,
            mark,
            held=self._is_held(stored),
            id=key.rpartition("/")[2],
            address=address_in(stored.value),
            host=host,
            facts=facts(stored.value) if mark in (Mark.NONE, Mark.UNTOLD) else {},
        )

    def _is_held(self, stored: Stored) -> bool:
        """Whether the key has our present owner's flags and, with ``-ttl``, our session."""
        locked = stored.session == self._session.id and bool(stored.session) == bool(self._ttl)
        return locked and stored.flags == self._owners.flags

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the plan in transactions. Rejects a key that somebody else took meanwhile."""
        with self._warning():
            if not self._finder.ready:
                self._find(())
            if plan.register and self._ttl and not self._session.id:
                self._call(self._session.open)
            return self._writer.write([*map(_write, plan.register), *map(Write, plan.deregister)])

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        """Log once that the token may not write the manifest."""
        yield
        if self._manifest.denied and not self._told:
            self._told = True
            log.warning(
                "%s: the token may not write the manifest below %s, so the agent lists all keys "
                "at its start and every 10 to 20 minutes; %s",
                self._name, self._manifest.root, self._rules,
                extra={"registry": self._name},
            )  # fmt: skip

    def keepalive(self) -> None:
        """Renew the session by one request if it is due. Otherwise look at the connection."""
        api = self._servers.current
        dropped = api is not None and api.http.dropped()
        if dropped:
            self._finder.doubt()
        if self._session.id:
            if dropped or self._session.due:
                self._call(self._session.renew)
        elif dropped:
            # The server may have restarted, with less than it had.
            self._wake_soon()

    def close(self) -> None:
        """Close the connection. Consul deletes the session's keys when its TTL has passed."""
        self._session.forget()
        self._servers.close()

    def _call(self, function: Callable[[Api], T]) -> T:
        """Make one call at the first address that works. Raises `Unavailable` after one pass."""
        with explain_denial(self._rules):
            return anywhere(self._servers, function)


def _write(entry: Entry) -> Write:
    service = entry.service
    return Write(entry.key, entry.content, str(Address(service.address, service.port)))
