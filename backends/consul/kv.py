"""Keys in Consul's key-value store: ``consulkv``, ``consulkv-tls`` and ``consulkv-unix``.

A service is the key ``<prefix>/<name>/<id>``. Its value is ``ip:port``, as in
gliderlabs/registrator, or the whole service with ``?value=json``. A plain value has no place for
an owner. So the key's flags contain a hash of the owner: 0 means that an entry has no mark, and
any other number belongs to somebody else (see `kv_owners`).

With ``-ttl``, one session locks every key. Consul deletes the keys when the session is not
renewed (see `kv_session`). Consul takes between one and two TTLs to end it. Keys of a predecessor
are released and locked in one transaction, so they are never missing.

The store belongs to the whole cluster. If a call finds its server dead, it continues at the next
address, and nothing must be written again.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
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
from registrator.uri import Address, RegistryURI

from ..common.order import Order
from ..common.values import address_in, marks, wants_json
from .api import Api
from .errors import Refused, explain_denial
from .kv_owners import Owners, facts
from .kv_session import Session, anywhere
from .kv_transaction import MOVED_ON, Stored, Write, operations, transactions
from .servers import Servers
from .settings import Settings
from .transport import WATCH, printable

log = logging.getLogger("registrator.consulkv")

MAX_VALUE = 256 * 1024
MAX_KEY = 4096
MAX_ATTEMPTS = 3

T = TypeVar("T")


class ConsulKVBackend:
    """``consulkv://[token@]host:port,…/prefix``. ``?value=json`` writes the whole service."""

    def __init__(self, context: Context) -> None:
        uri = context.uri
        require_known_options(uri, "value", *([] if uri.scheme.endswith("-unix") else ["order"]))
        self._json = wants_json(uri)
        if context.ttl and not 10 <= context.ttl <= 86400:
            raise ConfigError("Consul's sessions need a -ttl of 10 to 86400 s")
        socket_path, self._prefix = _place(uri)
        self._identity = context.identity
        self._owners = Owners(context.identity)
        self._ttl = context.ttl
        # At most a second, to notice a restarted server or an agent that left.
        self.keepalive_interval = min(WATCH, context.ttl_refresh) if context.ttl else WATCH
        self._wake_soon = context.wake_soon
        self._seen: dict[str, Stored] = {}
        self._rules = f'the token needs key_prefix "{self._prefix}" {{ policy = "write" }}'
        if self._ttl:
            self._rules += ' and session_prefix "" { policy = "write" }'
        settings = Settings.read(context, socket_path)
        order = Order(context)
        self._session = Session(context, settings, order)
        self._servers = Servers(uri, settings, log, need_leader=True, order=order)

    def entry(self, service: Service) -> Entry:
        """``<prefix>/<name>/<id>``. Name and id may be paths, as in the original.

        Raises `Rejected`.
        """
        key = f"{self._prefix}{service.name}/{service.id}"
        _require_legal(key.removeprefix(self._prefix))
        content = str(Address(service.address, service.port))
        if self._json:
            content = json.dumps(service.record | marks(self._identity), sort_keys=True)
        if not content.isprintable():
            raise Rejected(f"the address {service.address[:80]!r} is not printable")
        if len(content) > MAX_VALUE:
            raise Rejected(f"the service takes {len(content)} bytes, more than {MAX_VALUE}")
        return Entry(key, content, service)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every key under the prefix, whoever wrote it."""
        self._seen = self._call(lambda api: self._read(api, self._prefix, recurse=True))
        if self._ttl:
            sessions = {
                stored.session for stored in self._seen.values() if self._is_foreign(stored)
            }
            self._call(partial(self._session.learn_hosts, sessions=sessions))
        return {key: self._actual(key, stored) for key, stored in self._seen.items()}

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
        if plan.register and self._ttl and not self._session.id:
            self._call(self._session.open)
        writes = [Write(entry.key, entry.content) for entry in plan.register]
        writes += [Write(key) for key in plan.deregister]
        rejected: dict[str, str] = {}
        writes = [
            write
            for write in writes
            if not (seen := self._seen.get(write.key))
            or not self._blocked(write, seen, seen, rejected)
        ]
        for transaction in transactions(writes):
            self._commit(transaction, rejected)
        return rejected

    def keepalive(self) -> None:
        """Renew the session by one request if it is due. Otherwise look at the connection."""
        api = self._servers.current
        dropped = api is not None and api.http.dropped()
        if self._session.id:
            if dropped or self._session.due:
                self._call(self._session.renew)
        elif dropped:
            # The server may have restarted, with less than it had.
            self._wake_soon()

    def close(self) -> None:
        """Close the connection; Consul deletes the session's keys when its TTL has passed."""
        self._session.forget()
        self._servers.close()

    def _call(self, function: Callable[[Api], T]) -> T:
        """Make one call at the first address that works. Raises `Unavailable` after one pass."""
        with explain_denial(self._rules):
            return anywhere(self._servers, function)

    def _read(self, api: Api, key: str, *, recurse: bool) -> dict[str, Stored]:
        try:
            found: Any = api.kv.get(key, recurse=recurse)[1]
        except Refused as error:
            if error.status != 404:
                raise
            return {}
        with api.http.expect_consul_format():
            rows = found or () if recurse else [found]
            return {row["Key"]: Stored.read(row) for row in rows}

    def _commit(self, writes: Sequence[Write], rejected: dict[str, str]) -> None:
        """Carry out all writes except those that Consul or somebody else's key forbids."""
        for _ in range(MAX_ATTEMPTS):
            planned = [
                (write, operation)
                for write in writes
                for operation in operations(
                    write, self._seen.get(write.key), self._owners.flags, self._session.id
                )
            ]
            if not planned:
                return
            request = [operation for _, operation in planned]
            results, errors = self._call(partial(Api.transact, operations=request))
            if not errors:
                self._note(writes, results)
                return
            failed = {planned[error["OpIndex"]][0]: error["What"] for error in errors}
            if any("invalid session" in what for what in failed.values()):
                self._session.forget()
                raise SessionLost("the session in Consul ended, and every entry with it")
            settled = {
                write for write, what in failed.items() if self._settle(write, what, rejected)
            }
            writes = [write for write in writes if write not in settled]
        raise Unavailable(f"somebody else keeps changing the same keys under {self._prefix}")

    def _note(self, writes: Sequence[Write], results: Sequence[Mapping[str, Any]]) -> None:
        """Remember the keys as the transaction left them."""
        values = {write.key: write.value for write in writes}
        for key, value in values.items():
            if value is None:
                self._seen.pop(key, None)
        for row in (result["KV"] for result in results):
            value = values.get(row["Key"])
            if value is not None:
                self._seen[row["Key"]] = Stored.read(row)._replace(value=value)

    def _settle(self, write: Write, what: str, rejected: dict[str, str]) -> bool:
        """Whether a failed write must not be tried again, given what the key holds now."""
        if "permission denied" in what.lower():
            rejected[write.key] = f"permission denied: {self._rules}"
            return True
        if not MOVED_ON.search(what):
            rejected[write.key] = what
            return True
        now = self._call(lambda api: self._read(api, write.key, recurse=False)).get(write.key)
        before = self._seen.pop(write.key, None)
        if now is None:
            return write.value is None
        if self._blocked(write, now, before, rejected):
            return True
        self._seen[write.key] = now
        return False

    def _blocked(
        self, write: Write, now: Stored, before: Stored | None, rejected: dict[str, str]
    ) -> bool:
        """Whether a key must not be touched. A removal is then skipped."""
        why = self._obstacle(write.key, now, before)
        if why and write.value is not None:
            rejected[write.key] = why
        return bool(why)

    def _obstacle(self, key: str, now: Stored, before: Stored | None) -> str:
        """Why a key must not be touched; empty if it may be. The plan knows it as `before`."""
        actual = self._actual(key, now)
        same = before is not None and (before.value, before.flags) == (now.value, now.flags)
        if actual.mark is Mark.OURS or (same and actual.mark is not Mark.OTHERS):
            return ""
        if actual.mark is Mark.NONE and before is not None and self._owners.are_ours(before):
            return ""  # Somebody wrote another value over our key, and our flags went with that.
        return actual.holder


def _place(uri: RegistryURI) -> tuple[str, str]:
    """The socket's path, for ``consulkv-unix``, and the prefix of all keys."""
    socket_path, path = "", uri.path
    if uri.scheme.endswith("-unix"):
        socket_path, _, path = uri.path.partition(":/")
    prefix = path.strip("/")
    if not prefix:
        return socket_path, ""
    try:
        _require_legal(prefix)
    except Rejected as error:
        raise ConfigError(str(error)) from None
    return socket_path, f"{prefix}/"


def _require_legal(path: str) -> None:
    """Raise `Rejected` if this is not a key, or if a URL cannot ask Consul for it."""
    if {"", ".", ".."} & set(path.split("/")) or not printable(path):
        raise Rejected(
            f"{path[:80]!r} is not a legal key: a part is empty or dots, or it is not printable"
        )
    if len(path.encode()) > MAX_KEY:
        raise Rejected(f"{path[:80]!r}… has more than {MAX_KEY} bytes")
