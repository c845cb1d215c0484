"""Keys in Consul's key-value store: ``consulkv``, ``consulkv-tls`` and ``consulkv-unix``.

A service is the key ``<prefix>/<name>/<id>``. Its value is ``ip:port``, as in
gliderlabs/registrator, or the whole service with ``?value=json``. A plain value has no place for
an owner. So the key's flags contain a hash of the owner: 0 means that an entry has no mark, and
any other number belongs to somebody else.

With ``-ttl``, one session locks every key. Consul deletes the keys when the session is not
renewed. The session depends on its TTL alone, not on the health of an agent, so it survives a
failover. Consul takes between one and two TTLs to end it. Keys of a predecessor are released and
locked in one transaction, so they are never missing.

The store belongs to the whole cluster. If a call finds its server dead, it continues at the next
address, and nothing must be written again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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

from ..common.values import address_in, wants_json
from .api import Api
from .errors import NoAnswer, Refused, explain_denial
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
        require_known_options(uri, "value")
        self._json = wants_json(uri)
        if context.ttl and not 10 <= context.ttl <= 86400:
            raise ConfigError("Consul's sessions need a -ttl of 10 to 86400 s")
        socket_path, self._prefix = _place(uri)
        self._owner = context.identity.owner
        # 63 bits, because some programs that read flags take no more. Never 0.
        digest = hashlib.sha256(self._owner.encode()).digest()
        self._flags = int.from_bytes(digest[:8], "big") >> 1 or 1
        self._ttl = context.ttl
        self._interval = context.ttl_refresh if context.ttl else WATCH
        self._wake = context.wake
        self._session = ""
        self._seen: dict[str, Stored] = {}
        self._rules = f'the token needs key_prefix "{self._prefix}" {{ policy = "write" }}'
        if self._ttl:
            self._rules += ' and session_prefix "" { policy = "write" }'
        self._servers = Servers(uri, Settings.read(context, socket_path), log, need_leader=True)

    @property
    def keepalive_interval(self) -> float | None:
        """The refresh interval, or one second without ``-ttl``, to notice a restarted server."""
        return self._interval

    def entry(self, service: Service) -> Entry:
        """``<prefix>/<name>/<id>``. Name and id may be paths, as in the original.

        Raises `Rejected`.
        """
        key = f"{self._prefix}{service.name}/{service.id}"
        _require_legal(key.removeprefix(self._prefix))
        content = str(Address(service.address, service.port))
        if self._json:
            content = json.dumps(service.record | {"owner": self._owner}, sort_keys=True)
        if not content.isprintable():
            raise Rejected(f"the address {service.address[:80]!r} is not printable")
        if len(content) > MAX_VALUE:
            raise Rejected(f"the service takes {len(content)} bytes, more than {MAX_VALUE}")
        return Entry(key, content, service)

    def list(self) -> Mapping[str, Actual]:
        """Every key under the prefix, whoever wrote it."""
        self._seen = self._call(self._read_all)
        return {
            key: Actual(
                stored.value,
                self._mark(stored),
                held=stored.session == self._session and bool(stored.session) == bool(self._ttl),
                id=key.rpartition("/")[2],
                address=address_in(stored.value),
            )
            for key, stored in self._seen.items()
        }

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the plan in transactions. Rejects a key that another owner took meanwhile."""
        if plan.register and self._ttl and not self._session:
            self._session = self._call(self._open_session)
        writes = [Write(entry.key, entry.content, entry.service.address) for entry in plan.register]
        writes += [Write(key) for key in plan.deregister]
        rejected: dict[str, str] = {}
        for transaction in transactions(writes):
            self._commit(transaction, rejected)
        return rejected

    def keepalive(self) -> None:
        """Renew the session by one request. Without ``-ttl``, check the connection by none."""
        api = self._servers.current
        if self._session:
            try:
                self._call(lambda api: api.session.renew(self._session))
            except Refused as error:
                self._session = ""
                raise SessionLost(f"the session in Consul ended ({error})") from error
        elif api is not None and api.http.dropped():
            self._call(Api.ping)
            if self._servers.current is api:
                raise SessionLost(f"{api.endpoint} closed the connection; it may have restarted")
            # The move is logged. The new server may have less than the old one had.
            self._wake()

    def close(self) -> None:
        """Close the connection; Consul deletes the session's keys when its TTL has passed."""
        self._servers.close()

    def _call(self, function: Callable[[Api], T]) -> T:
        """Make one call at the first address that works. Raises `Unavailable` after one pass."""
        with explain_denial(self._rules):
            api = self._servers.use()
            for _ in self._servers.known[1:]:
                try:
                    return function(api)
                except NoAnswer as error:
                    api = self._servers.move(error)
            try:
                return function(api)
            except NoAnswer:
                self._servers.close()
                raise

    def _read_all(self, api: Api) -> dict[str, Stored]:
        return self._read(api, self._prefix, recurse=True)

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

    def _open_session(self, api: Api) -> str:
        """Open a session that only its TTL ends. It has no checks, so no agent's death ends it."""
        session: str = api.session.create(
            f"registrator {self._owner}",
            checks=[],
            lock_delay=0,
            behavior="delete",
            ttl=self._ttl,
        )
        return session

    def _mark(self, stored: Stored) -> Mark:
        if stored.flags == self._flags:
            return Mark.OURS
        return Mark.OTHERS if stored.flags else Mark.NONE

    def _commit(self, writes: Sequence[Write], rejected: dict[str, str]) -> None:
        """Carry out all writes except those that Consul or another owner's key forbids."""
        for _ in range(MAX_ATTEMPTS):
            writes = [write for write in writes if not self._refused(write, rejected)]
            planned = [
                (write, operation)
                for write in writes
                for operation in operations(
                    write, self._seen.get(write.key), self._flags, self._session
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
            self._require_session(failed.values())
            settled = {
                write for write, what in failed.items() if self._settle(write, what, rejected)
            }
            writes = [write for write in writes if write not in settled]
        raise Unavailable(f"the keys under {self._prefix} change faster than they are written")

    def _refused(self, write: Write, rejected: dict[str, str]) -> bool:
        """Whether the key, as last seen, must not be touched. A removal is then skipped."""
        stored = self._seen.get(write.key)
        if stored is None or self._mark(stored) is Mark.OURS:
            return False
        address = address_in(stored.value)
        if self._mark(stored) is Mark.OTHERS:
            reason = "another owner holds it"
        elif write.value is None or address == write.address:
            return False
        else:
            reason = f"somebody else registered it with {address or 'no address'}"
        if write.value is not None:
            rejected[write.key] = reason
        return True

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

    def _require_session(self, reasons: Iterable[str]) -> None:
        if any("invalid session" in reason for reason in reasons):
            self._session = ""
            raise SessionLost("the session in Consul ended, and every entry with it")

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
        self._seen[write.key] = now
        # The caller may remove the unmarked entry that it saw, but not one that came later.
        same = before is not None and before.value == now.value
        return write.value is None and not same and self._mark(now) is not Mark.OURS


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
