"""The lease that all keys of an owner's host hang on. It is their mark, too.

A client may choose a lease's id in etcd. Of its 63 bits, the upper 55 follow from the owner, even
if the value is a plain ``ip:port``. The lower 8 bits are a slot. It follows from the hostname and
the TTL. So a restarted agent finds its lease, and the keys under it, without a write. Two hosts
with one engine id have two leases. Version 1.0.0 took the slot from the TTL alone, and takes every
slot for its own.

Several agents of one host share the lease. It is never revoked, because another agent might be
writing under it. A lease with a TTL expires by itself, and a host has only one without.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from contextlib import closing

from registrator.backend import Context, SessionLost, Unavailable

from ..common.keeper import Keeper
from .client import EtcdClient
from .rpc import Code, Refused, etcdrpc, keep_alive, unary

LEASE_GRANT = unary("Lease", "LeaseGrant")
LEASE_TIME_TO_LIVE = unary("Lease", "LeaseTimeToLive")

# A hundred years. etcd takes up to 9e9 s, but counts in nanoseconds, which end in the year 2262.
FOREVER = 100 * 365 * 86_400
SLOTS = 256


class Lease:
    """`id` is None until the lease is known to exist.

    `space` tells the keys of different layouts and prefixes apart. With a TTL the lease stays alive
    even while the reconciler waits for something else: a `Keeper` then opens a second connection.
    """

    def __init__(self, context: Context, client: EtcdClient, space: str) -> None:
        self.id: int | None = None
        self._context = context
        self._client = client
        self._ttl = math.ceil(context.ttl) or FOREVER
        identity = context.identity
        self._owners = {_base(space, owner): owner for owner in identity.owners}
        self._base = _base(space, identity.owner)
        self._slots = _slots(identity.hostname, self._ttl)
        self._strange: Collection[int] = ()
        self._look = _granted if context.read_only else _renew
        self._keeper = Keeper(context.ttl, context.ttl_refresh, self._beat, context.wake)

    def owner(self, lease: int) -> str | None:
        """Which of this host's owners a lease names, if any."""
        return self._owners.get(lease >> 8)

    def possible(self) -> tuple[Sequence[int], Sequence[int]]:
        """The leases that this host is likely to have used, and all others of its owners.

        It is likely to have used those of this TTL and of none, and version 1.0.0's. With another
        TTL, a lease ends by itself once nobody renews it.
        """
        lasting = _slots(self._context.identity.hostname, FOREVER)
        slots = (*self._slots[:2], *lasting[:2], self._ttl % SLOTS, FOREVER % SLOTS)
        likely = dict.fromkeys(base << 8 | slot for base in self._owners for slot in slots)
        every = (base << 8 | slot for slot in range(SLOTS) for base in self._owners)
        return [*likely], [lease for lease in every if lease not in likely]

    def find(self, strange: Collection[int]) -> None:
        """Look whether the lease exists. The `strange` ones are those of other hosts."""
        self._strange = strange
        if self.id is None:
            lease, granted = self._candidate()
            if granted:
                self._hold(lease)

    def acquire(self) -> None:
        """Make the lease, unless it exists."""
        if self.id is not None:
            return
        lease, granted = self._candidate()
        if not granted:
            try:
                self._client.call(LEASE_GRANT, etcdrpc.LeaseGrantRequest(ID=lease, TTL=self._ttl))
            except Refused as error:
                # If another agent of this host was faster, its lease is ours as well.
                if error.code is not Code.FAILED_PRECONDITION:
                    raise
        self._hold(lease)

    def keep_alive(self) -> None:
        """Renew the lease, and with it every entry, by one request. Raises `SessionLost`."""
        if self.id is None:
            return
        if not _renew(self._client, self.id):
            self.lost()
            raise SessionLost("the lease in etcd ended, and every entry with it")
        self._keeper.kept()

    def lost(self) -> None:
        """Note that the lease does not exist any more."""
        self.id = None

    def close(self) -> None:
        """Leave the lease to its TTL."""
        self._keeper.stop()

    def _hold(self, lease: int) -> None:
        self.id = lease
        if not self._context.read_only:
            self._keeper.kept()

    def _candidate(self) -> tuple[int, bool]:
        """The lease to write under, and whether it exists.

        A server raises a TTL that is below its minimum. If our slot has a lease of another TTL or
        host, we take the next slot. That happens to one in 256 of them.
        """
        for slot in self._slots:
            lease = self._base << 8 | slot
            if lease in self._strange:
                continue
            granted = self._look(self._client, lease)
            if granted == 0 or self._ttl <= granted < self._ttl + SLOTS:
                return lease, granted > 0
        raise Unavailable("this owner has too many leases in etcd; wait until they expire")

    def _beat(self) -> None:
        """Renew the lease through a connection that nothing else uses."""
        lease = self.id
        if lease is None:
            return
        with closing(EtcdClient(self._context, self._client.login)) as client:
            if not _renew(client, lease):
                raise SessionLost("the lease in etcd ended")


def _slots(hostname: str, ttl: int) -> list[int]:
    """The slots for a host's lease with this TTL, the preferred one first."""
    digest = hashlib.sha256(f"{hostname}\0{ttl}".encode()).digest()
    return [slot for slot in digest if slot != ttl % SLOTS]


def _base(space: str, owner: str) -> int:
    digest = hashlib.sha256(f"{space}\0{owner}".encode()).digest()
    return int.from_bytes(digest[:7], "big") >> 1


def _renew(client: EtcdClient, lease: int) -> int:
    """The TTL that etcd granted to a lease. 0 if the lease does not exist."""
    answer = client.call(keep_alive, etcdrpc.LeaseKeepAliveRequest(ID=lease))
    return int(answer.TTL)


def _granted(client: EtcdClient, lease: int) -> int:
    """The same as `_renew`, but the lease's time goes on."""
    answer = client.call(LEASE_TIME_TO_LIVE, etcdrpc.LeaseTimeToLiveRequest(ID=lease))
    return int(answer.grantedTTL)
