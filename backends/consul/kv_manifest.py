"""The manifest: the names of all keys in Consul's store that may be this host's.

An agent that starts finds its predecessor's keys by it, without a listing of all hosts' keys. It
lies at ``.registrator/<prefix>/<hash of owner and host>/<number>``. Readers do not see it there,
also those that list the prefix without a slash at its end. It is in numbered parts, so that one
event writes a few KiB however many services the host has.

The manifest may name too many keys, but never too few. A new key is written in a transaction
which shows that a part names it. A part forgets a key only in a transaction which shows that the
key is free, or somebody else's. So it holds even if a write lands late, or a second agent of this
host writes at the same time. No session locks it, because it must outlive the session.

Anybody who may write it may have stored anything in it. What it names is only looked at: the marks
of a key say whose it is.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import count

from registrator.model import Identity

from ..common.values import HOST, OWNER, json_in
from .kv_keys import MAX_KEY
from .kv_transaction import Stored

# Bytes of the names in one part, and the most that is read as a part at all.
MAX_PART = 8 * 1024
MAX_READ = 4 * MAX_PART

_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")

Names = frozenset[str]


class Manifest:
    """The parts as they were last seen in `seen`, and what to write into them.

    `denied` is True while the token may not write the manifest. `root` is the prefix of all hosts'
    manifests.
    """

    def __init__(self, identity: Identity, prefix: str, seen: Mapping[str, Stored | None]) -> None:
        self.denied = False
        self.root = f".registrator/{prefix}"
        self._prefix = prefix
        self._seen = seen
        self._marks = {OWNER: identity.owner, HOST: identity.hostname}
        # Those of the engines that this host had before are read, and not written.
        self._folders = [
            f"{self.root}{_digest(owner, identity.hostname)}/" for owner in identity.owners
        ]
        self._parsed: dict[str, tuple[Stored, Names | None]] = {}

    def belongs(self, key: str) -> bool:
        """Whether a key is a part of some manifest, and no entry."""
        return key.startswith(self.root)

    def folder(self, key: str) -> str:
        """The folder of one of our parts. Empty for other keys."""
        return next((each for each in self._folders if key.startswith(each)), "")

    def watched(self) -> set[str]:
        """The parts to look at, with the next one, which a second agent may add."""
        if self.denied:
            return set()
        return {*self.parts(), *(f"{each}0" for each in self._folders), self._next(())}

    @property
    def names(self) -> set[str]:
        """Every key that the parts name."""
        return {name for names in self.parts().values() for name in names or ()}

    @property
    def incomplete(self) -> bool:
        """Whether keys of ours may exist that no part names: a part is missing or unreadable."""
        parts = self.parts()
        found = {self.folder(part) for part in parts}
        return None in parts.values() or not found.issuperset(self._folders)

    def parts(self) -> dict[str, Names | None]:
        """The parts in the order of their numbers, with the keys that they name.

        It is None for a part that is not readable.
        """
        found = {}
        for key, stored in self._seen.items():
            folder = self.folder(key)
            if stored and folder and _NUMBER.fullmatch(key.removeprefix(folder)):
                found[key] = self._read(key, stored)
        return dict(sorted(found.items(), key=lambda part: int(part[0].rpartition("/")[2])))

    def _read(self, key: str, stored: Stored) -> Names | None:
        former = self._parsed.get(key)
        if former is None or former[0] is not stored:
            former = self._parsed[key] = stored, _names(stored.value, self._prefix)
        return former[1]

    def _own(self) -> dict[str, Names | None]:
        """The parts that this agent writes."""
        return {k: names for k, names in self.parts().items() if k.startswith(self._folders[0])}

    def _next(self, taken: Collection[str]) -> str:
        """The first part of our own that is neither there nor `taken`."""
        numbers = (f"{self._folders[0]}{number}" for number in count())
        return next(each for each in numbers if not self._seen.get(each) and each not in taken)

    def where(self) -> dict[str, str]:
        """The part of our own that names a key, by key."""
        return {name: part for part, names in self._own().items() for name in names or ()}

    def grown(self, keys: Iterable[str], forget: Collection[str] = ()) -> dict[str, Names]:
        """The parts to write so that all `keys` are named, with their new names.

        These parts name the keys of `forget` no longer. Unreadable parts are filled first.
        """
        own = self._own()
        known = {name for names in own.values() for name in names or ()}
        lacking = [key for key in keys if key not in known]
        if not lacking:
            return {}
        parts = {part: set(names or ()).difference(forget) for part, names in own.items()}
        order = sorted(parts, key=lambda part: own[part] is not None)
        sizes = {part: sum(map(_size, names)) for part, names in parts.items()}
        grown: dict[str, set[str]] = {}
        for key in lacking:
            part = next((each for each in order if sizes[each] + _size(key) <= MAX_PART), "")
            if not part:
                part = self._next(order)
                order.append(part)
            sizes[part] = sizes.get(part, 0) + _size(key)
            grown.setdefault(part, parts.get(part, set())).add(key)
        return {part: Names(names) for part, names in grown.items()}

    def mended(self, keys: Iterable[str]) -> dict[str, Names]:
        """The parts to write so that the manifest is complete, if `keys` are all of ours.

        An odd key with our flags is not named. We never wrote it, and no part could name it.
        """
        parts = self.parts()
        found = {self.folder(part) for part in parts}
        empty = {f"{each}0": Names() for each in self._folders if each not in found}
        broken = {part: Names() for part, names in parts.items() if names is None}
        return empty | broken | self.grown([key for key in keys if self._is_nameable(key)])

    def lacks(self, keys: Iterable[str]) -> bool:
        """Whether no part names one of these keys, although a part could."""
        return not self.names.issuperset(key for key in keys if self._is_nameable(key))

    def _is_nameable(self, key: str) -> bool:
        return _is_name(key.removeprefix(self._prefix))

    def text(self, names: Names) -> str:
        """The value of a part."""
        keys = sorted(name.removeprefix(self._prefix) for name in names)
        return json.dumps(self._marks | {"keys": keys}, ensure_ascii=False)


def _digest(owner: str, hostname: str) -> str:
    return hashlib.sha256(f"{owner}\n{hostname}".encode()).hexdigest()[:32]


def _size(name: str) -> int:
    return len(name.encode()) + 4


def _is_name(key: object) -> bool:
    """Whether a part may name this key."""
    if not isinstance(key, str) or not key or not key.isprintable():
        return False
    return len(key.encode()) <= MAX_KEY


def _names(value: str, prefix: str) -> Names | None:
    """The keys that a part's value names. None if an agent cannot have written it."""
    keys = json_in(value).get("keys") if len(value) <= MAX_READ else None
    if not isinstance(keys, list):
        return None
    if not all(map(_is_name, keys)):
        return None
    return Names(f"{prefix}{key}" for key in keys)
