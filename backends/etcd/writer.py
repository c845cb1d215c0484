"""Sends writes to etcd in transactions, none of which changes what another owner holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from registrator.backend import Unavailable
from registrator.model import Actual, Mark

from .client import EtcdClient
from .known import TXN, Known, Pair, pair_of, unchanged
from .lease import Lease
from .rpc import Refused, etcdrpc, too_large
from .writes import Write, transactions

MAX_ATTEMPTS = 3


class Writer:
    """Writes keys, unless they changed since the last look.

    `look` tells what a key holds. A key that was ours at the last look remains ours, even if
    somebody else wrote it since, and our mark went with that.
    """

    def __init__(
        self, client: EtcdClient, lease: Lease, known: Known, look: Callable[[Pair], Actual]
    ) -> None:
        self._client = client
        self._lease = lease
        self._known = known
        self._look = look
        self._ours: set[bytes] = set()

    def seen(self, marks: Mapping[bytes, Mark]) -> None:
        """Take over whose the listed keys are."""
        self._ours = {
            key
            for key, mark in marks.items()
            if mark is Mark.OURS or (mark is Mark.NONE and key in self._ours)
        }

    def write(self, writes: Sequence[Write]) -> Mapping[str, str]:
        """Carry out the writes. Returns the keys that may not be written, with the reason."""
        rejected: dict[str, str] = {}
        for transaction in transactions(writes):
            self._halve(transaction, rejected)
        return rejected

    def _halve(self, writes: Sequence[Write], rejected: dict[str, str]) -> None:
        """Carry out the writes, in smaller transactions if the server's limits are lower."""
        try:
            self._commit(writes, rejected)
        except Refused as error:
            if not too_large(error):
                raise
            if len(writes) > 1:
                middle = len(writes) // 2
                self._halve(writes[:middle], rejected)
                self._halve(writes[middle:], rejected)
            else:
                rejected[writes[0].key.decode()] = str(error)

    def _commit(self, writes: Sequence[Write], rejected: dict[str, str]) -> None:
        """Carry out the writes in one transaction, unless a key changed since it was last seen."""
        for _ in range(MAX_ATTEMPTS):
            request = etcdrpc.TxnRequest(
                compare=[self._unchanged(write.key) for write in writes],
                success=[self._operation(write) for write in writes],
            )
            answer = self._client.call(TXN, request)
            if answer.succeeded:
                self._written(writes, answer.header.revision)
                return
            writes = self._still_due(writes, rejected)
            if not writes:
                return
        raise Unavailable("somebody else keeps changing the same keys in etcd")

    def _written(self, writes: Sequence[Write], revision: int) -> None:
        for key, value, _ in writes:
            if value is None:
                self._known.note(key, None)
                self._ours.discard(key)
            else:
                self._known.note(key, Pair(key, value, self._lease.id or 0, revision))
                self._ours.add(key)

    def _unchanged(self, key: bytes) -> Any:
        """The condition that a key is as we know it. What another owner holds never meets it."""
        pair = self._known.get(key)
        if pair is not None and self._look(pair).mark is Mark.OTHERS:
            pair = None
        return unchanged(key, pair)

    def _operation(self, write: Write) -> Any:
        if write.value is None:
            return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=write.key))
        return etcdrpc.RequestOp(
            request_put=etcdrpc.PutRequest(key=write.key, value=write.value, lease=self._lease.id)
        )

    def _still_due(self, writes: Sequence[Write], rejected: dict[str, str]) -> Sequence[Write]:
        """The writes that are still due and allowed, given what the keys hold now."""
        reads = [
            etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=write.key)) for write in writes
        ]
        answer = self._client.call(TXN, etcdrpc.TxnRequest(success=reads))
        due = []
        for write, response in zip(writes, answer.responses, strict=True):
            kvs = response.response_range.kvs
            found = pair_of(kvs[0]) if kvs else None
            refusal = self._refusal(write, self._look(found)) if found else ""
            if refusal and write.value is not None:
                rejected[write.key.decode()] = refusal
            if refusal:
                continue
            self._known.note(write.key, found)
            if not self._done(write, found):
                due.append(write)
        return due

    def _refusal(self, write: Write, found: Actual) -> str:
        """Why a key that changed since the last look may not be written. Empty if it may."""
        ours = found.mark is Mark.OURS or write.key in self._ours
        same = write.value is not None and write.address == found.address
        may = (ours or same) and found.mark not in (Mark.TWIN, Mark.OTHERS)
        return "" if may else found.holder

    def _done(self, write: Write, found: Pair | None) -> bool:
        if write.value is None or found is None:
            return write.value is None and found is None
        return found.value == write.value and found.lease == self._lease.id
