"""Services in etcd (API version 3): a key ``<prefix>/<name>/<id>`` each, all under one lease."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from registrator.backend import (
    ConfigError,
    Context,
    Rejected,
    SessionLost,
    require_known_options,
    require_port,
)
from registrator.model import Actual, Entry, Mark, Plan, Service
from registrator.uri import Address, RegistryURI

from ..common.values import HOST, OWNER, address_in, host_in_id, json_in, marks, wants_json
from .client import EtcdClient
from .known import Known, Pair
from .lease import Lease
from .listing import Listing
from .rpc import Code, Refused, no_space
from .writer import Writer
from .writes import MAX_VALUE, Write, check


class EtcdBackend:
    """``etcd://host:port,…/prefix``. ``?value=json`` writes the whole service as JSON."""

    any_thread = True

    layout = "etcd"
    options: tuple[str, ...] = ("value",)

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` if the URI or the environment is wrong."""
        uri = context.uri
        require_known_options(uri, "order", *self.options)
        self._json = wants_json(uri)
        self._identity = context.identity
        self._prefix = self.prefix(uri)
        self.keepalive_interval = context.ttl_refresh if context.ttl else None
        self._client = EtcdClient(context)
        self._lease = Lease(context, self._client, f"{self.layout}\0{self._prefix}")
        known = Known(self._client)
        self._listing = Listing(
            context, self._client, self._lease, known, self._prefix, self._is_others
        )
        self._writer = Writer(self._client, self._lease, known, self._actual)

    def prefix(self, uri: RegistryURI) -> str:
        """The start of all keys, without the slash after it."""
        prefix = uri.path.rstrip("/")
        if prefix:
            try:
                check("path", prefix.removeprefix("/"), nested=True)
            except Rejected as error:
                raise ConfigError(str(error)) from None
        return prefix

    def entry(self, service: Service) -> Entry:
        """``<prefix>/<name>/<id>``. A name may be a path, an id may not. Raises `Rejected`."""
        require_port(service)
        check("name", service.name, nested=True)
        check("id", service.id)
        if self._json:
            content = json.dumps(service.record | marks(self._identity))
        else:
            check("address", service.address)
            content = str(Address(service.address, service.port))
        if len(content) > MAX_VALUE:
            raise Rejected(f"the service takes {len(content)} bytes, more than {MAX_VALUE}")
        return Entry(f"{self._prefix}/{service.name}/{service.id}", content, service)

    def list(self, keys: Collection[str] = (), /) -> Mapping[str, Actual]:
        """Every entry of this owner, and what stands at `keys`. See `Listing` for the cost."""
        pairs = self._listing.read({key.encode() for key in keys})
        # Only the keys under the leases of our engine's id tell which of them is this host's.
        self._lease.find(self._strange(pairs))
        found = {pair.key: self._actual(pair) for pair in pairs}
        self._writer.seen({key: actual.mark for key, actual in found.items()})
        return {key.decode(): actual for key, actual in found.items()}

    def apply(self, plan: Plan) -> Mapping[str, str]:
        """Write the plan in transactions. Rejects a key that another owner took meanwhile."""
        puts = [
            Write(entry.key.encode(), entry.content.encode(), entry.service.address)
            for entry in plan.register
        ]
        deletes = [Write(key.encode()) for key in plan.deregister]
        try:
            if puts:
                self._lease.acquire()
            return self._writer.write([*puts, *deletes])
        except Refused as error:
            if puts and no_space(error):
                self._writer.write(_final(deletes, puts))
            if error.code is not Code.NOT_FOUND:
                raise
            self._lease.lost()
            raise SessionLost(f"the lease in etcd ended ({error})") from None

    def keepalive(self) -> None:
        """Renew the lease, and with it every entry, by one request."""
        self._lease.keep_alive()

    def close(self) -> None:
        """Close the connection. The entries stand until their TTL, if they have one, expires."""
        self._lease.close()
        self._client.close()

    def is_originals(self, document: Mapping[str, Any]) -> bool:
        """Whether gliderlabs/registrator may have written a value, with this JSON object in it.

        It wrote ``ip:port``.
        """
        return not document

    def _is_others(self, pair: Pair) -> bool:
        """Whether a key is another owner's, whatever lease we hold."""
        if self._lease.owner(pair.lease) is not None:
            return False
        return self._actual(pair).mark is Mark.OTHERS

    def _actual(self, pair: Pair) -> Actual:
        """The entry that a key holds, and its owner."""
        value = _text(pair.value)
        document = json_in(value)
        host = self._host(pair, document)
        owner = self._lease.owner(pair.lease) or document.get(OWNER)
        mark = self._identity.mark(owner, host)
        if mark is Mark.NONE and pair.lease:
            mark = Mark.OTHERS
        return Actual(
            value,
            mark,
            held=pair.lease == self._lease.id,
            id=_id(pair),
            address=address_in(value),
            host=host if mark is Mark.TWIN else "",
            facts=self._facts(value, document, mark),
        )

    def _host(self, pair: Pair, document: Mapping[str, Any]) -> str:
        """The host that a key of our engine's id names, by its value, its lease or its id."""
        named = document.get(HOST)
        if isinstance(named, str) and named:
            return named
        in_id, here = host_in_id(_id(pair)), self._identity.hostname
        if pair.lease == self._lease.id:
            # Another host may have found our lease without a key, and write under it, too.
            return here if in_id in ("", here) else ""
        return in_id

    def _strange(self, pairs: Iterable[Pair]) -> Collection[int]:
        """The leases whose keys name other hosts, and not this one."""
        hosts: dict[int, set[str]] = {}
        for pair in pairs:
            if self._lease.owner(pair.lease) is None:
                continue
            if host := self._host(pair, json_in(_text(pair.value))):
                hosts.setdefault(pair.lease, set()).add(host)
        return {lease for lease, named in hosts.items() if self._identity.hostname not in named}

    def _facts(self, value: str, document: Mapping[str, Any], mark: Mark) -> Mapping[str, Any]:
        """Address and port of a service, if it may be one of ours without our mark.

        The key tells the name and the id.
        """
        if mark not in (Mark.NONE, Mark.UNTOLD):
            return {}
        if mark is Mark.NONE and not self.is_originals(document):
            return {}
        port = document.get("port") if document else _port(value)
        return {"address": address_in(value), "port": port}


def _text(raw: bytes) -> str:
    """A key or a value, which may be any bytes."""
    return raw.decode("utf-8", "backslashreplace")


def _id(pair: Pair) -> str:
    """The last part of a key: a service's id, or in DNS a label made from it."""
    return _text(pair.key).rpartition("/")[2]


def _port(value: str) -> int | None:
    """The port in ``ip:port``."""
    port = value.rpartition(":")[2]
    return int(port) if re.fullmatch("[0-9]{1,5}", port) else None


def _final(deletes: Sequence[Write], puts: Sequence[Write]) -> Sequence[Write]:
    """The deletes that no put has to precede: it would write the same service to another key."""
    waiting = {put.key.rpartition(b"/")[2] for put in puts}
    return [delete for delete in deletes if delete.key.rpartition(b"/")[2] not in waiting]
