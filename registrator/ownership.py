"""Whose an entry is: our identity, and the marks that tell our entries from those of others."""

from dataclasses import dataclass
from enum import Enum


class Mark(Enum):
    """Whose an entry is, by what the registry itself says of it.

    TWIN and UNTOLD carry our engine's id. A TWIN names another host: two hosts share one engine id,
    as cloned machines do, or this host has a new name. UNTOLD names no host: version 1.0.0 wrote
    it, or the registry has no place for the name.
    """

    OURS = "ours"
    TWIN = "another host's with our engine id"
    UNTOLD = "our engine's"
    OTHERS = "another owner's"
    NONE = "unmarked"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are in the registries.

    `owner` is the Docker engine's id, since hostnames repeat across cloned machines. `hostname` is
    the first part of service ids. `former` are ids that this host's engine had before
    (``-former-engine``).
    """

    owner: str
    hostname: str
    former: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """All owners whose entries may be this host's, the present one first."""
        return (self.owner, *self.former)

    def mark(self, owner: str | None, host: str | None = None) -> Mark:
        """The mark of an entry that names this owner and this host. None stands for no name."""
        if not owner:
            return Mark.NONE
        if owner not in self.owners:
            return Mark.OTHERS
        if not host:
            return Mark.UNTOLD
        return Mark.OURS if host == self.hostname else Mark.TWIN
