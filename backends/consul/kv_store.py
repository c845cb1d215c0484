"""The keys that concern this host, as they stand now, without a listing of the prefix.

Consul answers a transaction of up to 64 checks without a value, and names the keys that changed.
Only these are read. So a look costs one operation for each key of this host, and a value for each
that changed. Other hosts' keys cost nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from registrator.backend import Unavailable

from .kv_transaction import Operation, Stored, check, operation, questions

Transact = Callable[[Sequence[Operation]], tuple[Sequence[tuple[str, Stored]], Mapping[int, str]]]


def denied(what: str) -> bool:
    """Whether an operation failed because the token may not do it. Nothing was carried out then."""
    return "permission denied" in what.lower()


class Store:
    """The keys as they were last seen.

    `seen` is by key. It holds None for a key that was free. `transact` carries out one transaction.
    `tree` tells the beginning of a key that only this host's keys have, or nothing. A key that was
    not seen yet is read together with all keys that begin so.
    """

    def __init__(self, transact: Transact, tree: Callable[[str], str]) -> None:
        self.seen: dict[str, Stored | None] = {}
        self.transact = transact
        self._tree = tree

    def read(self, key: str) -> Stored | None:
        """Read what a key holds now. This does not change `seen`."""
        rows, errors = self.transact([operation("get", key)])
        for what in errors.values():
            _require_gone(what)
        return dict(rows).get(key)

    def look(self, keys: Iterable[str], *, again: bool = False) -> set[str]:
        """See what the keys hold now. Returns the keys that the token may not ask for.

        With `again`, what was seen does not count: another server may count otherwise.
        """
        wanted = dict.fromkeys(keys)
        unknown = [key for key in wanted if again or key not in self.seen]
        trees: dict[str, list[str]] = {tree: [] for key in unknown if (tree := self._tree(key))}
        asked = [operation("get-tree", tree) for tree in trees]
        for key in wanted:
            if (tree := self._tree(key)) in trees:
                trees[tree].append(key)
            elif again or key not in self.seen:
                asked.append(operation("get", key))
            else:
                asked.append(check(key, self.seen[key]))
        refused: set[str] = set()
        while asked:
            # Each round settles all keys but those that changed or vanished since the last one.
            asked = [each for part in questions(asked) for each in self._ask(part, trees, refused)]
        return refused

    def _ask(
        self, asked: Sequence[Operation], trees: Mapping[str, Sequence[str]], refused: set[str]
    ) -> Sequence[Operation]:
        """Ask in one transaction. Returns what to ask next, because there is no answer yet."""
        rows, errors = self.transact(asked)
        pairs = [(each["KV"]["Verb"], each["KV"]["Key"]) for each in asked]
        if not errors:
            self._note(pairs, dict(rows), trees)
            return ()
        if any(map(denied, errors.values())):
            for number in errors:
                self.seen.pop(pairs[number][1], None)
                refused.add(pairs[number][1])
            return [each for number, each in enumerate(asked) if number not in errors]
        left: list[Operation] = []
        for number, (verb, key) in enumerate(pairs):
            if number not in errors:
                # A check without an error holds. The others have an answer only if all do.
                if verb.startswith("get"):
                    left.append(asked[number])
            elif verb == "get":
                _require_gone(errors[number])
                self.seen[key] = None
            else:
                left.append(operation("get", key))
        return left

    def _note(
        self,
        asked: Sequence[tuple[str, str]],
        rows: Mapping[str, Stored],
        trees: Mapping[str, Sequence[str]],
    ) -> None:
        for verb, key in asked:
            if verb == "get":
                self.seen[key] = rows.get(key)
            elif verb == "get-tree":
                self.seen.update(dict.fromkeys(trees[key]))
        read = {key for verb, key in asked if verb == "get-tree"}
        self.seen.update({key: row for key, row in rows.items() if self._tree(key) in read})


def _require_gone(what: str) -> None:
    """Raise `Unavailable` unless a key could not be read because it does not exist."""
    if "exist" not in what and not denied(what):
        raise Unavailable(f"Consul cannot read a key: {what[:300]}")
