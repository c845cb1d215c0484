"""Finds the keys of this host in etcd, at a cost that the keys of other hosts do not add to.

The keys of an owner hang on its leases, and etcd tells which keys hang on a lease. An owner may
have used 256 leases. The first listing asks for the likely ones, and each later one for
`PER_LISTING` of the others, until all were asked for once. A lease that exists stays in use. So a
listing takes one request for each lease in use, and one for each 128 keys of this host.

Keys without a lease are found by their place: at the keys that the reconciler asks for, and once
below each name of a service that runs here, if the id begins with this hostname.
"""

import logging
from collections.abc import Callable, Collection, Iterator

from registrator.backend import Context

from ..common.batches import chunks
from .client import EtcdClient
from .known import Known, Pair, pair_of
from .lease import LEASE_TIME_TO_LIVE, Lease
from .rpc import Code, Refused, etcdrpc, unary

log = logging.getLogger("registrator.etcd")

RANGE = unary("KV", "Range")

PAGE = 5000
PER_LISTING = 16


class Listing:
    """The keys of this host below `prefix`. `is_others` tells which keys are another owner's."""

    def __init__(
        self,
        context: Context,
        client: EtcdClient,
        lease: Lease,
        known: Known,
        prefix: str,
        is_others: Callable[[Pair], bool],
    ) -> None:
        self._uri = context.uri
        self._hostname = context.identity.hostname.encode()
        self._client = client
        self._lease = lease
        self._known = known
        self._prefix = prefix.encode()
        self._is_others = is_others
        likely, rest = lease.possible()
        # What each of the next listings asks for.
        self._to_ask = [likely, *chunks(rest, PER_LISTING)]
        self._in_use: set[int] = set()
        self._searched: set[bytes] = set()
        self._warned = False

    def read(self, wanted: Collection[bytes]) -> list[Pair]:
        """All that stands at `wanted`, and every other key of this host."""
        try:
            self._read_own(wanted)
        except Refused as error:
            if error.code not in (Code.PERMISSION_DENIED, Code.UNIMPLEMENTED):
                raise
            self._read_all(wanted)
            self._warn(error)
        return self._known.pairs()

    def _read_own(self, wanted: Collection[bytes]) -> None:
        """Bring the known pairs up to date by the leases of this host."""
        asked, leased = self._on_next_leases()
        names = {key.rpartition(b"/")[0] for key in wanted} - self._searched
        below = self._known.unleased([b"%b/%b:" % (name, self._hostname) for name in names])
        unmarked = filter(self._is_below, below)
        own = {pair.key for pair in self._known.pairs() if not self._is_others(pair)}
        # The first one shows the rights and the quorum, even to a host without services.
        keys = {self._prefix + b"/", *wanted, *leased, *unmarked, *own}
        self._known.look(keys)
        while leases := self._shown() - asked:
            asked |= leases
            more = self._on_leases(leases) - keys
            self._known.look(more)
            keys |= more
        self._known.keep(keys)
        self._searched |= names

    def _on_next_leases(self) -> tuple[set[int], set[bytes]]:
        """The leases in use, and some that were never asked for, with the keys on them."""
        leases = {*self._in_use, *(self._to_ask[0] if self._to_ask else ())}
        if self._lease.id is not None:
            leases.add(self._lease.id)
        found = self._on_leases(leases)
        del self._to_ask[:1]
        return leases, found

    def _on_leases(self, leases: Collection[int]) -> set[bytes]:
        """The keys on these leases. A lease that does not exist is no longer in use."""
        found: set[bytes] = set()
        for lease in leases:
            request = etcdrpc.LeaseTimeToLiveRequest(ID=lease, keys=True)
            answer = self._client.call(LEASE_TIME_TO_LIVE, request)
            # The time that remains is negative, too, for a lease that etcd is about to end.
            if answer.grantedTTL:
                self._in_use.add(lease)
            else:
                self._in_use.discard(lease)
            found.update(key for key in answer.keys if self._is_below(key))
        return found

    def _shown(self) -> set[int]:
        """The leases of this host's owners that known keys hang on."""
        leases = {pair.lease for pair in self._known.pairs()}
        return {lease for lease in leases if self._lease.owner(lease) is not None}

    def _is_below(self, key: bytes) -> bool:
        """Whether we may have written a key. Anybody may hang any key on any lease."""
        return key.startswith(self._prefix + b"/") and _is_text(key)

    def _read_all(self, wanted: Collection[bytes]) -> None:
        """Do the same by a listing of all keys below the prefix. Others' keys add to its cost."""
        found: dict[bytes, Pair | None] = dict.fromkeys(wanted)
        for pair in self._everything():
            if _is_text(pair.key) and (pair.key in found or not self._is_others(pair)):
                found[pair.key] = pair
        self._known.replace(found)

    def _warn(self, error: Refused) -> None:
        """Log once that etcd refuses to tell the keys on a lease."""
        if not self._warned:
            log.warning(
                "%s: etcd does not tell which keys are on our lease (%s); "
                "each listing reads all keys below %s/ instead",
                self._uri, error, self._prefix.decode(), extra={"registry": self._uri},
            )  # fmt: skip
        self._warned = True

    def _everything(self) -> Iterator[Pair]:
        """Every key under the prefix, all of one revision."""
        start, end = self._prefix + b"/", self._prefix + b"0"
        revision = 0
        while True:
            page = etcdrpc.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            answer = self._client.call(RANGE, page)
            yield from map(pair_of, answer.kvs)
            if not answer.more:
                return
            revision = revision or answer.header.revision
            start = answer.kvs[-1].key + b"\0"


def _is_text(key: bytes) -> bool:
    """Whether a key is text. We never write another one."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
