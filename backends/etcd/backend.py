"""Services in etcd (API version 3): a key ``<prefix>/<name>/<id>`` each, all under one lease.

The lease is also the owner's mark. A client may choose a lease's id in etcd, so ours follows from
the owner. Of its 63 bits, the upper 55 identify the owner, even if the value is a plain
``ip:port``. So a restarted agent finds its lease, and the keys under it, without a write. The
lower 8 bits distinguish leases of different TTLs.

Several agents of one owner share the lease. It is never revoked, because another agent might be
writing under it. A lease with a TTL expires by itself, and there is only one without.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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

from ..common.values import address_in, json_in, wants_json
from .client import EtcdClient
from .entries import MAX_VALUE, Write, check, transactions
from .rpc import Code, Refused, etcdrpc, keep_alive, unary

RANGE = unary("kvstub.Range")
TXN = unary("kvstub.Txn")
LEASE_GRANT = unary("leasestub.LeaseGrant")

# A hundred years. etcd takes up to 9e9 s, but counts in nanoseconds, which end in the year 2262.
FOREVER = 100 * 365 * 86_400
SLOTS = 256
PAGE = 5000
MAX_ATTEMPTS = 3


class EtcdBackend:
    """``etcd://host:port,…/prefix``. ``?value=json`` writes the whole service as JSON."""

    layout = "etcd"
    options: tuple[str, ...] = ("value",)

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` if the URI or the environment is wrong."""
        uri = context.uri
        require_known_options(uri, *self.options)
        self._json = wants_json(uri)
        self._owner = context.identity.owner
        self._prefix = self.prefix(uri)
        self._ttl = math.ceil(context.ttl) or FOREVER
        self._interval = context.ttl_refresh if context.ttl else None
        marked = f"{self.layout}\0{self._prefix}\0{self._owner}".encode()
        self._base = int.from_bytes(hashlib.sha256(marked).digest()[:7], "big") >> 1
        self._lease: int | None = None
        self._revisions: dict[bytes, int] = {}
        self._client = EtcdClient(context, tls=uri.scheme.endswith("-tls"))

    def prefix(self, uri: RegistryURI) -> str:
        """The start of all keys, without the slash after it."""
        prefix = uri.path.rstrip("/")
        if prefix:
            try:
                check("path", prefix.removeprefix("/"), nested=True)
            except Rejected as error:
                raise ConfigError(str(error)) from None
        return prefix

    @property
    def keepalive_interval(self) -> float | None:
        """The refresh interval, or None if entries live for ever."""
        return self._interval

    def entry(self, service: Service) -> Entry:
        """``<prefix>/<name>/<id>``. A name may be a path, an id may not. Raises `Rejected`."""
        check("name", service.name, nested=True)
        check("id", service.id)
        if self._json:
            content = json.dumps(service.record | {"owner": self._owner})
        else:
            check("address", service.address)
            content = str(Address(service.address, service.port))
        if len(content) > MAX_VALUE:
            raise Rejected(f"the service takes {len(content)} bytes, more than {MAX_VALUE}")
        return Entry(f"{self._prefix}/{service.name}/{service.id}", content, service)

    def list(self) -> Mapping[str, Actual]:
        """Every entry under the prefix, by key. The list is complete, or this raises."""
        if self._lease is None:
            lease, granted = self._find_lease()
            self._lease = lease if granted else None
        found: dict[str, Actual] = {}
        revisions: dict[bytes, int] = {}
        for kv in self._range():
            try:
                key = kv.key.decode()
            except UnicodeDecodeError:
                continue  # We never write such a key.
            value = _text(kv)
            mark = self._mark(kv)
            if mark is not Mark.OTHERS:
                revisions[kv.key] = kv.mod_revision
            held = kv.lease == self._lease
            found[key] = Actual(value, mark, held, key.rpartition("/")[2], address_in(value))
        self._revisions = revisions
        return found

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the plan in transactions. Rejects a key that another owner took meanwhile."""
        writes = [
            Write(entry.key.encode(), entry.content.encode(), entry.service.address)
            for entry in plan.register
        ]
        writes += [Write(key.encode()) for key in plan.deregister]
        rejected: dict[str, str] = {}
        try:
            if plan.register and self._lease is None:
                self._lease = self._acquire_lease()
            for transaction in transactions(writes):
                self._commit(transaction, rejected)
        except Refused as error:
            if error.code is not Code.NOT_FOUND:
                raise
            self._lease = None
            raise SessionLost(f"the lease in etcd ended ({error})") from None
        return rejected

    def keepalive(self) -> None:
        """Renew the lease, and with it every entry, by one request."""
        if self._lease is not None and not self._renew(self._lease):
            self._lease = None
            raise SessionLost("the lease in etcd ended, and every entry with it")

    def close(self) -> None:
        """Close the connection. The entries stand until their TTL, if they have one, expires."""
        self._client.close()

    def _renew(self, lease: int) -> int:
        """The TTL that etcd granted to a lease. 0 if the lease does not exist."""
        answer = self._client.call(keep_alive, etcdrpc.LeaseKeepAliveRequest(ID=lease))
        return int(answer.TTL)

    def _find_lease(self) -> tuple[int, bool]:
        """The lease to write under, and whether it exists.

        A server raises a TTL that is below its minimum. If a lease of another TTL has our slot,
        we take the next slot. That happens after one in 256 changes of the TTL.
        """
        for step in range(SLOTS):
            lease = self._base << 8 | (self._ttl + step) % SLOTS
            granted = self._renew(lease)
            if granted == 0 or self._ttl <= granted < self._ttl + SLOTS:
                return lease, granted > 0
        raise Unavailable("this owner has too many leases in etcd; wait until they expire")

    def _acquire_lease(self) -> int:
        lease, granted = self._find_lease()
        if not granted:
            try:
                self._client.call(LEASE_GRANT, etcdrpc.LeaseGrantRequest(ID=lease, TTL=self._ttl))
            except Refused as error:
                # If another agent of this owner was faster, its lease is ours as well.
                if error.code is not Code.FAILED_PRECONDITION:
                    raise
        return lease

    def _range(self) -> Iterator[Any]:
        """Every key under the prefix, all of one revision."""
        start, end = f"{self._prefix}/".encode(), f"{self._prefix}0".encode()
        revision = 0
        while True:
            answer = self._client.call(
                RANGE,
                etcdrpc.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision),
            )
            yield from answer.kvs
            if not answer.more:
                return
            revision = revision or answer.header.revision
            start = answer.kvs[-1].key + b"\0"

    def _mark(self, kv: Any) -> Mark:
        if kv.lease >> 8 == self._base:
            return Mark.OURS
        owner = json_in(_text(kv)).get("owner")
        if owner is not None:
            return Mark.OURS if owner == self._owner else Mark.OTHERS
        return Mark.OTHERS if kv.lease else Mark.NONE

    def _commit(self, writes: Sequence[Write], rejected: dict[str, str]) -> None:
        """Carry out the writes in one transaction, unless a key changed since it was last seen."""
        for _ in range(MAX_ATTEMPTS):
            request = etcdrpc.TxnRequest(
                compare=[self._unchanged(write.key) for write in writes],
                success=[self._operation(write) for write in writes],
            )
            answer = self._client.call(TXN, request)
            if answer.succeeded:
                for key, value, _ in writes:
                    if value is None:
                        self._revisions.pop(key, None)
                    else:
                        self._revisions[key] = answer.header.revision
                return
            writes = self._still_ours(writes, rejected)
            if not writes:
                return
        raise Unavailable(f"the keys under {self._prefix}/ change faster than they are written")

    def _unchanged(self, key: bytes) -> Any:
        return etcdrpc.Compare(
            target=etcdrpc.Compare.MOD,
            result=etcdrpc.Compare.EQUAL,
            key=key,
            mod_revision=self._revisions.get(key, 0),
        )

    def _operation(self, write: Write) -> Any:
        if write.value is None:
            return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=write.key))
        return etcdrpc.RequestOp(
            request_put=etcdrpc.PutRequest(key=write.key, value=write.value, lease=self._lease)
        )

    def _still_ours(self, writes: Sequence[Write], rejected: dict[str, str]) -> Sequence[Write]:
        """The writes that are still due and allowed, given what the keys hold now."""
        reads = [
            etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=write.key)) for write in writes
        ]
        answer = self._client.call(TXN, etcdrpc.TxnRequest(success=reads))
        due = []
        for write, response in zip(writes, answer.responses, strict=True):
            found = response.response_range.kvs
            refusal = self._refusal(write, found[0]) if found else ""
            if refusal and write.value is not None:
                rejected[write.key.decode()] = refusal
            if refusal:
                continue
            self._revisions[write.key] = found[0].mod_revision if found else 0
            if not self._done(write, found):
                due.append(write)
        return due

    def _refusal(self, write: Write, kv: Any) -> str:
        mark = self._mark(kv)
        if mark is Mark.OTHERS:
            return "another owner holds it"
        address = address_in(_text(kv))
        if mark is Mark.NONE and (write.value is None or write.address != address):
            return f"somebody else has just registered it with {address or 'no address'}"
        return ""

    def _done(self, write: Write, found: Sequence[Any]) -> bool:
        if write.value is None or not found:
            return write.value is None and not found
        return bool(found[0].value == write.value and found[0].lease == self._lease)


def _text(kv: Any) -> str:
    """The value of a key, which may be any bytes."""
    text: str = kv.value.decode("utf-8", "backslashreplace")
    return text
