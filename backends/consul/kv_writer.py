"""Writes keys into Consul's store, with their names in the manifest, in as few transactions."""

from collections.abc import Callable, Collection, Mapping, Sequence

from registrator.backend import SessionLost, Unavailable
from registrator.model import Actual, Mark

from ..common.values import host_in_id
from .kv_manifest import Manifest
from .kv_owners import Owners
from .kv_session import Session
from .kv_store import Store, denied
from .kv_transaction import (
    MAX_OPERATIONS,
    MOVED_ON,
    Operation,
    Stored,
    Write,
    check,
    operations,
    put,
    transactions,
)

MAX_ATTEMPTS = 5

# A part of the manifest forgets up to this many keys at once, if no more than `FEW` are written.
MAX_FORGET, FEW = 24, 16

# Operations with the keys that they concern, and the values that keys have afterwards.
Planned = list[tuple[str, Operation]]
Values = dict[str, str | None]


class Writer:
    """Writes keys, unless they changed since they were last seen.

    `look` tells what a key holds. `rules` are the rights that the token needs.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        owners: Owners,
        session: Session,
        look: Callable[[str, Stored], Actual],
        hostname: str,
        rules: str,
    ) -> None:
        self._store, self._manifest = store, manifest
        self._seen = store.seen
        self._hostname = hostname
        self._owners, self._session = owners, session
        self._look = look
        self._rules = rules

    def write(self, writes: Sequence[Write]) -> Mapping[str, str]:
        """Carry out the writes. Returns the keys that may not be written, with the reason."""
        rejected: dict[str, str] = {}
        writes = [
            write
            for write in writes
            if not (stored := self._seen.get(write.key))
            or not self._blocked(write, stored, stored, rejected)
        ]
        # The first transaction of a part names all keys that the part is to name.
        new = [write.key for write in writes if write.value is not None]
        for transaction in transactions(writes):
            self._commit(transaction, new, rejected)
        return rejected

    def complete(self, keys: Sequence[str]) -> None:
        """Have the manifest name all these keys, which are all of ours."""
        for _ in range(MAX_ATTEMPTS):
            parts = {} if self._manifest.denied else self._manifest.mended(keys)
            if not parts:
                return
            for part, names in parts.items():
                text = self._manifest.text(names)
                failed = self._send([(part, put(part, text, self._seen.get(part)))], {part: text})
                self._learn(failed)
        raise Unavailable("somebody else keeps changing the manifest in Consul")

    def _commit(
        self, writes: Sequence[Write], new: Sequence[str], rejected: dict[str, str]
    ) -> None:
        """Carry out all writes except those that Consul or somebody else's key forbids."""
        for attempt in range(MAX_ATTEMPTS):
            if not writes:
                return
            # To forget a key takes a check of it. Whoever changes it must not hold up the writes.
            planned, values = self._naming(writes, new, forget=not attempt)
            for write in writes:
                values[write.key] = write.value
                planned += (
                    (write.key, operation)
                    for operation in operations(
                        write, self._seen.get(write.key), self._owners.flags, self._session.id
                    )
                )
            if len(planned) > MAX_OPERATIONS:
                middle = len(writes) // 2
                self._commit(writes[:middle], new, rejected)
                self._commit(writes[middle:], new, rejected)
                return
            failed = self._send(planned, values)
            if not failed:
                return
            if any("invalid session" in what for what in failed.values()):
                self._session.forget()
                raise SessionLost("the session in Consul ended, and every entry with it")
            ours = {write.key for write in writes}
            self._learn({key: what for key, what in failed.items() if key not in ours})
            writes = [
                write
                for write in writes
                if write.key not in failed or not self._settle(write, failed[write.key], rejected)
            ]
        raise Unavailable("somebody else keeps changing the same keys in Consul")

    def _naming(
        self, writes: Sequence[Write], new: Sequence[str], *, forget: bool
    ) -> tuple[Planned, Values]:
        """The operations that show, or see to it, that the manifest names all keys.

        A key that is ours already needs none if it has a name: no part forgets it.
        """
        planned: Planned = []
        values: Values = {}
        if self._manifest.denied:
            return planned, values
        named = self._manifest.where()
        grown = self._manifest.grown(new, self._forgettable(writes, named) if forget else ())
        growing = {name: part for part, names in grown.items() for name in names}
        due = (
            write.key
            for write in writes
            if write.value is not None and not (write.key in named and self._is_ours(write.key))
        )
        for part in dict.fromkeys(growing.get(key) or named[key] for key in due):
            if part not in grown:
                planned.append((part, check(part, self._seen.get(part))))
                continue
            values[part] = text = self._manifest.text(grown[part])
            planned.append((part, put(part, text, self._seen.get(part))))
            forgotten = (k for k, p in named.items() if p == part and k not in grown[part])
            planned += ((key, check(key, self._seen[key])) for key in forgotten)
        return planned, values

    def _forgettable(self, writes: Sequence[Write], named: Collection[str]) -> Sequence[str]:
        """Keys that the manifest names, although they are free or somebody else's."""
        if len(writes) > FEW:
            return ()
        due = {write.key for write in writes}
        found = [
            key for key in named if key in self._seen and key not in due and not self._is_ours(key)
        ]
        return found[:MAX_FORGET]

    def _is_ours(self, key: str) -> bool:
        stored = self._seen.get(key)
        return stored is not None and self._owners.are_ours(stored)

    def _send(self, planned: Planned, values: Values) -> dict[str, str]:
        """Carry out a transaction. Returns the keys for which it failed, each with the reason.

        `values` are those that the keys have then, or None for keys that are gone.
        """
        found, errors = self._store.transact([operation for _, operation in planned])
        if errors:
            return {planned[number][0]: what for number, what in errors.items()}
        rows = dict(found)
        for key, value in values.items():
            if value is None:
                self._seen[key] = None
            elif key in rows:
                self._seen[key] = rows[key]._replace(value=value)
            else:
                self._seen.pop(key, None)
        return {}

    def _learn(self, failed: Mapping[str, str]) -> None:
        """See what the manifest, and the keys that it was to forget, hold now."""
        refused = {key for key, what in failed.items() if denied(what)}
        for key in refused:
            self._seen.pop(key, None)
        refused |= self._store.look(failed.keys() - refused)
        if any(map(self._manifest.belongs, refused)):
            self._manifest.denied = True

    def _settle(self, write: Write, what: str, rejected: dict[str, str]) -> bool:
        """Whether a failed write must not be tried again, given what the key holds now."""
        if denied(what):
            rejected[write.key] = f"permission denied: {self._rules}"
            return True
        if not MOVED_ON.search(what):
            rejected[write.key] = what
            return True
        now = self._store.read(write.key)
        before, self._seen[write.key] = self._seen.get(write.key), None
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
        why = self._obstacle(write, now, before)
        if why and write.value is not None:
            rejected[write.key] = why
        return bool(why)

    def _obstacle(self, write: Write, now: Stored, before: Stored | None) -> str:
        """Why a key must not be touched. Empty if it may be. The plan knows it as `before`."""
        actual = self._look(write.key, now)
        same = before is not None and (before.value, before.flags) == (now.value, now.flags)
        if actual.mark is Mark.OURS or (same and actual.mark is not Mark.OTHERS):
            return ""
        if actual.mark is Mark.NONE:
            if before is not None and self._owners.are_ours(before):
                return ""  # Somebody wrote another value over our key. Our flags went with that.
            if write.value is not None and self._is_originals(write, now.value):
                return ""
        return actual.holder

    def _is_originals(self, write: Write, value: str) -> bool:
        """Whether gliderlabs/registrator wrote a value for this very service.

        The address is enough for an id of the form that it makes. Other ids need the port, too.
        """
        address = write.shown.rpartition(":")[0]
        made = host_in_id(write.key.rpartition("/")[2]) == self._hostname
        return value == write.shown or (made and value.rpartition(":")[0] == address)
