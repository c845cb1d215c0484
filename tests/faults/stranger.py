"""Somebody with an entry of his own beside ours. He changes, deletes and writes it at any time."""

from __future__ import annotations

from support.wait import until

from faults.world import READ_ERRORS, World


class Stranger:
    """`begin` and `end` are his part of a fault. He notes what the registry says of each write."""

    kinds = ("change", "delete")

    def __init__(self, world: World) -> None:
        self._world = world
        self._wrote: object = None
        self._sure = False
        self._late = False  # whether a removal timed out: a frozen server may carry it out later

    def begin(self, kind: str) -> None:
        """Change the entry or delete it. This may fail."""
        self._try(kind)

    def end(self) -> None:
        """Write it once more. This may fail."""
        self._try("change")

    def _try(self, kind: str) -> None:
        self._sure = False
        try:
            self._world.uproot() if kind == "delete" else self.write()
        except READ_ERRORS:
            self._late |= kind == "delete"

    def write(self) -> None:
        """Write an entry that differs from all before."""
        self._world.port += 1
        self._world.plant()
        self._wrote = self._world.strangers()
        self._sure = bool(self._wrote)

    def settle(self, lost: bool) -> None:
        """Write it again if it was `lost` to a fault, or if nobody knows whether a write worked."""
        if lost or self._late or not self._sure:
            self._late = False
            until(self._written, "the stranger's write", ignore=READ_ERRORS)

    def _written(self) -> bool:
        self.write()
        return self._sure

    def complaint(self) -> str:
        """The fault of the entry now, or nothing."""
        found = until(lambda: [self._world.strangers()], "a look", ignore=READ_ERRORS)[0]
        return "" if found == self._wrote else f"the stranger wrote {self._wrote}, it is {found}"
