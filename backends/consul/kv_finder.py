"""Finds this host's keys in Consul's store, at a cost that does not grow with other hosts' keys.

The keys to look at are those that the reconciler names, those that were seen before, and those that
the manifest names. A key that is looked at for the first time is read with all keys of this host's
under the same name. So what gliderlabs/registrator left there is found, too.

If no manifest can be read at the start, all keys below the prefix are read once. If the token may
not write it, this is done again now and then.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from registrator.model import Actual, Identity, Mark

from .api import Api
from .kv_keys import host_tree
from .kv_manifest import Manifest
from .kv_owners import Owners
from .kv_store import Store
from .kv_transaction import MAX_OPERATIONS, Operation, Stored, operation

# Seconds between two sweeps if the token may not write the manifest.
SWEEPS = 600.0, 1200.0
# A sweep asks for more folders at once while their keys are this few.
FEW = 200

T = TypeVar("T")


class Call(Protocol):
    """The type of what makes calls."""

    def __call__(self, function: Callable[[Api], T], /) -> T:
        """Make one call at the server in use."""


class Finder:
    """Keeps `store` and `manifest` in step with what Consul holds.

    `look` tells what a key holds. `ready` is True as soon as all of our keys were found once.
    """

    def __init__(
        self, identity: Identity, prefix: str, call: Call, look: Callable[[str, Stored], Actual]
    ) -> None:
        self.store = Store(self._transact, self._tree)
        self.manifest = Manifest(identity, prefix, self.store.seen)
        self.ready = False
        self._owners = Owners(identity)
        self._hostname = identity.hostname
        self._prefix = prefix
        self._call, self._look = call, look
        self._server: Api | None = None
        self._next_sweep = 0.0

    def _transact(
        self, operations: Sequence[Operation]
    ) -> tuple[Sequence[tuple[str, Stored]], Mapping[int, str]]:
        return self._call(partial(Api.transact, operations=operations))

    def _tree(self, key: str) -> str:
        """The beginning of a key that only this host's keys have."""
        return self.manifest.folder(key) or host_tree(key, self._hostname)

    def doubt(self) -> None:
        """Read all keys anew: the server may have other ones now with the same indexes."""
        self._server = None

    def entries(self) -> Iterator[tuple[str, Stored]]:
        """The keys that were found, without the manifest."""
        for key, stored in self.store.seen.items():
            if stored and not self.manifest.belongs(key):
                yield key, stored

    def ours(self) -> Sequence[str]:
        """The keys with our engine's flags that name no other host."""
        return [key for key, stored in self.entries() if self._is_ours(key, stored)]

    def find(self, keys: Collection[str]) -> None:
        """See what `keys` and this owner's keys hold now."""
        manifest, seen = self.manifest, self.store.seen
        server = self._call(lambda api: api)
        due = not self.ready or (manifest.denied and time.monotonic() >= self._next_sweep)
        if due:
            manifest.denied = False
            self._see(manifest.watched())
        for part in manifest.watched():
            seen.setdefault(part, None)  # The check of a free key also shows the right to write.
        self._forget(keys)
        known = {key for key, stored in seen.items() if stored}
        again = self.ready and server is not self._server
        self._see({*keys, *known, *manifest.names, *manifest.watched()}, again=again)
        self._see(manifest.names - seen.keys())
        # A key of ours without a name shows that somebody wrote keys and no names for a while.
        lacking = not self.ready and (manifest.incomplete or manifest.lacks(self.ours()))
        if due and (manifest.denied or lacking):
            self._sweep()
        self.ready, self._server = True, server

    def _see(self, keys: Collection[str], *, again: bool = False) -> None:
        refused = self.store.look(keys, again=again)
        if any(map(self.manifest.belongs, refused)):
            self.manifest.denied = True

    def _forget(self, keys: Collection[str]) -> None:
        """Forget what was seen at keys that no longer concern us."""
        manifest, seen = self.manifest, self.store.seen
        concern = {*keys, *manifest.names, *manifest.parts(), *manifest.watched()}
        for key in seen.keys() - concern:
            stored = seen[key]
            if not stored or not (
                self._is_ours(key, stored) or self._is_unmarked(key, stored.flags)
            ):
                del seen[key]

    def _sweep(self) -> None:
        """Look for keys of ours that nothing names, among everybody's.

        They are read in small parts, because all together may be many.
        """
        folders = self._call(partial(Api.folders, prefix=self._prefix))
        folders = [each for each in folders if not self.manifest.belongs(each)]
        start, size, passed = 0, 1, 0

        def keep(key: str, flags: int) -> bool:
            nonlocal passed
            passed += 1
            return self._owners.own(flags) or self._is_unmarked(key, flags)

        while start < len(folders):
            trees = [operation("get-tree", each) for each in folders[start : start + size]]
            rows, _ = self._call(partial(Api.transact, operations=trees, keep=keep))
            self.store.seen.update(rows)
            start += size
            size, passed = min(2 * size, MAX_OPERATIONS) if passed < FEW else 1, 0
        self._next_sweep = time.monotonic() + random.uniform(*SWEEPS)

    def _is_ours(self, key: str, stored: Stored) -> bool:
        return self._look(key, stored).mark in (Mark.OURS, Mark.UNTOLD)

    def _is_unmarked(self, key: str, flags: int) -> bool:
        """Whether gliderlabs/registrator may have written a key on this host."""
        return not flags and bool(host_tree(key, self._hostname))
