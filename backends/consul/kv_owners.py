"""Whose a key in Consul's store is: a plain value has no place for an owner and a host."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from registrator.model import Identity, Mark

from ..common.values import address_in, host_in, host_in_id
from .kv_transaction import Stored


class Owners:
    """Tells owners by the keys' flags, and hosts by what else Consul knows of a key.

    `flags` are those of our keys. They are a hash of the owner only, because version 1.0.0 knows
    no others.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._owners = {_flags(owner): owner for owner in identity.owners}
        self.flags = _flags(identity.owner)

    def are_ours(self, stored: Stored) -> bool:
        """Whether a key has our engine's flags, or those of a former engine of this host."""
        return self.own(stored.flags)

    def own(self, flags: int) -> bool:
        """Whether these flags are our engine's, or those of a former engine of this host."""
        return flags in self._owners

    def mark(self, key: str, stored: Stored, session_host: str) -> tuple[Mark, str]:
        """Whose a key is, and the host that it names. `session_host` is that of its session."""
        if not stored.flags:
            return Mark.NONE, ""
        if not self.are_ours(stored):
            return Mark.OTHERS, ""
        host = host_in(stored.value) or session_host or host_in_id(key.rpartition("/")[2])
        return self._identity.mark(self._owners[stored.flags], host), host


def _flags(owner: str) -> int:
    """63 bits, because some programs that read flags take no more. Never 0, which is no mark."""
    digest = hashlib.sha256(owner.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def facts(value: str) -> Mapping[str, Any]:
    """The facts of a service in the original's value. Empty if the value has another form."""
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not host:
        return {}
    return {"address": address_in(value), "port": int(port)}
