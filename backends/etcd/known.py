"""Keeps what keys held when they were last looked at, and looks at them again cheaply.

A key that did not change costs a comparison of its revision, and no value. So a look at S keys
that did not change is one small request for each 128 of them, whatever else etcd holds.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..common.batches import chunks
from .client import EtcdClient
from .rpc import Refused, etcdrpc, too_large, unary
from .writes import MAX_OPERATIONS

TXN = unary("KV", "Txn")


class Pair(NamedTuple):
    """A key and its value, the lease that it hangs on or 0, and the revision of its last change."""

    key: bytes
    value: bytes
    lease: int
    revision: int


class Known:
    """The pairs of the keys that the agent looks at. It knows of some that they do not exist."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._pairs: dict[bytes, Pair | None] = {}
        self._most = MAX_OPERATIONS

    def get(self, key: bytes) -> Pair | None:
        """The pair that a key held. None if it did not exist, or was not looked at."""
        return self._pairs.get(key)

    def pairs(self) -> list[Pair]:
        """All pairs that existed."""
        return [pair for pair in self._pairs.values() if pair is not None]

    def note(self, key: bytes, pair: Pair | None) -> None:
        """Take over what a key holds. None if it does not exist."""
        self._pairs[key] = pair

    def keep(self, keys: Collection[bytes]) -> None:
        """Forget all other keys."""
        self._pairs = {key: pair for key, pair in self._pairs.items() if key in keys}

    def replace(self, pairs: Mapping[bytes, Pair | None]) -> None:
        """Take over what these keys hold, and forget all others."""
        self._pairs = dict(pairs)

    def look(self, keys: Iterable[bytes]) -> None:
        """Bring `keys` up to date. The answers are linearizable: no older than this call.

        Values come over the wire only for keys that are new, or whose 128 hold a change.
        """
        known: list[bytes] = []
        unknown: list[bytes] = []
        for key in keys:
            (known if key in self._pairs else unknown).append(key)
        self._in_parts(known, self._verify)
        self._in_parts(unknown, self._read)

    def unleased(self, prefixes: Sequence[bytes]) -> set[bytes]:
        """The keys that begin with one of these prefixes, and hang on no lease."""
        found: set[bytes] = set()

        def search(part: Sequence[bytes]) -> None:
            for answer in self._ranges(map(_below, part)):
                found.update(kv.key for kv in answer.kvs if not kv.lease)

        self._in_parts(prefixes, search)
        return found

    def _verify(self, keys: Sequence[bytes]) -> None:
        """Read the keys again if one of them changed."""
        compares = [unchanged(key, self._pairs[key]) for key in keys]
        # Without this operation, which is never carried out, etcd would compare with what this
        # member has: a member that is behind would not see the latest changes.
        linearizable = etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=keys[0]))
        request = etcdrpc.TxnRequest(compare=compares, failure=[linearizable])
        if not self._client.call(TXN, request).succeeded:
            self._read(keys)

    def _read(self, keys: Sequence[bytes]) -> None:
        answers = self._ranges(etcdrpc.RangeRequest(key=key) for key in keys)
        for key, answer in zip(keys, answers, strict=True):
            self._pairs[key] = pair_of(answer.kvs[0]) if answer.kvs else None

    def _ranges(self, requests: Iterable[Any]) -> list[Any]:
        """The answers to several requests for ranges, all of one revision."""
        operations = [etcdrpc.RequestOp(request_range=request) for request in requests]
        answer = self._client.call(TXN, etcdrpc.TxnRequest(success=operations))
        return [response.response_range for response in answer.responses]

    def _in_parts(self, keys: Sequence[bytes], work: Callable[[Sequence[bytes]], None]) -> None:
        """Do `work` with as many keys at a time as the server takes operations."""
        for part in chunks(keys, self._most):
            try:
                work(part)
            except Refused as error:
                if len(part) == 1 or not too_large(error):
                    raise
                self._most = min(self._most, len(part) // 2)
                self._in_parts(part, work)


def pair_of(kv: Any) -> Pair:
    """A pair, from etcd's message."""
    return Pair(kv.key, kv.value, kv.lease, kv.mod_revision)


def unchanged(key: bytes, pair: Pair | None) -> Any:
    """The condition of a transaction that a key is as it was. None if it did not exist."""
    return etcdrpc.Compare(
        target=etcdrpc.Compare.MOD,
        result=etcdrpc.Compare.EQUAL,
        key=key,
        mod_revision=pair.revision if pair is not None else 0,
    )


def _below(prefix: bytes) -> Any:
    """A request for the keys, without values, that begin with `prefix`."""
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    return etcdrpc.RangeRequest(key=prefix, range_end=end, keys_only=True)
