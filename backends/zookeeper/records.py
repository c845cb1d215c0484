"""How an agent finds the nodes of an agent that was killed, without a look at other hosts' nodes.

Each agent keeps one ephemeral node of its own session beside the base, its record:
``<base>.registrator/<hash of owner and host>-<slot>``. Its data is the password of its session. The
next agent of this host resumes that session for a moment and asks which nodes hang on it. A record
goes with its session, so it is never stale. It costs this host's agents one write at their start,
and the others nothing: nobody lists the folder.

The first agent with an engine's id also names its host at ``<base>.registrator/<hash of owner>``.
So a clone of that host, whose engine has the same id, learns of it.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from kazoo import exceptions as errors
from kazoo.client import KazooClient
from kazoo.security import CREATOR_ALL_ACL

from registrator.backend import Context, SessionLost
from registrator.model import Actual, Mark

from .ephemerals import ephemerals
from .nodes import CHANGED, above, failure, is_service, reason_for
from .session import Broken, Session
from .settings import Settings

# The sessions of this host that can have a record at one time.
SLOTS = 8

CLOSED = -1
PASSWORD = re.compile(rb"[0-9a-f]{32}")


class Unknown(Exception):
    """The records do not tell which sessions this host has. The text says why."""


@dataclass(frozen=True)
class Slot:
    """A place for a record. `session` is 0 if nothing in it tells a session."""

    path: str
    session: int = 0
    password: bytes = field(default=b"", repr=False)
    # The version of the node that stands there. None if none does, `CLOSED` if it may not be read.
    version: int | None = None


class Records:
    """The records of this host's agents, and our own one."""

    def __init__(self, context: Context, settings: Settings, session: Session, base: str) -> None:
        self._context = replace(context, wake=lambda: None, wake_soon=lambda: None)
        self._settings = settings
        self._session = session
        self._base = base
        self._folder = f"{base}.registrator"
        # The sessions whose record we may replace: they have ended, or hold nothing any more.
        self._over = {0}
        # Why our own record cannot be kept.
        self._impossible = ""
        if not base:
            self._impossible = "a record stands beside the base, and nothing stands beside /"
        self._claim = f"{self._folder}/{_hash(context.identity.owner)}"
        # The host that claims our engine's id, and since when we know.
        self._claimant, self._claimed_since = "", 0.0

    def former(self, client: KazooClient) -> Collection[str]:
        """The nodes under the base that hang on other sessions of this host.

        Also makes our own record. Raises `Unknown`.
        """
        if self._impossible:
            raise Unknown(self._impossible)
        owner, *others = self._context.identity.owners
        slots = self._slots(client, owner)
        found: list[str] = []
        closed: list[str] = []
        for slot in (*slots, *(each for other in others for each in self._slots(client, other))):
            if slot.password and slot.session != self._session.id:
                try:
                    held = self._held(slot)
                except Broken:
                    # Its agent lives, and has taken the session back.
                    continue
                found += held
                if not held:
                    self._over.add(slot.session)
            elif slot.version == CLOSED:
                closed.append(slot.path)
        self._keep(client, slots)
        self._look_at_claim(client)
        if closed:
            raise Unknown(f"{closed[0]} may not be read, as another user of ZooKeeper made it")
        return found

    def check(self, client: KazooClient, held: Collection[str]) -> None:
        """Make our record again if it is not among the nodes that our session holds.

        Raises `Unknown`.
        """
        if self._impossible:
            return
        owner = self._context.identity.owner
        missing = set(self._paths(owner)).isdisjoint(held)
        if missing:
            self._keep(client, self._slots(client, owner))
        if missing or self._claimant:
            self._look_at_claim(client)

    def _keep(self, client: KazooClient, slots: Collection[Slot]) -> None:
        """Make our record. If all slots are taken, there is none for now. Raises `Unknown`."""
        if self._session.id in {slot.session for slot in slots}:
            return
        refused = ""
        # Those of sessions that are over come first. So few slots are in use, and few are asked.
        for slot in sorted(slots, key=lambda slot: (not slot.session, slot.version is not None)):
            if slot.session in self._over:
                error = self._make(client, slot)
                if error is None:
                    return
                missing = isinstance(error, errors.NoNodeError) and slot.version is None
                if missing or not isinstance(error, CHANGED):
                    why = "the node above it cannot be made" if missing else reason_for(error)
                    refused = f"{slot.path}: {why}"
        if refused:
            remedy = f"give this agent's user the right CREATE on {self._folder}"
            self._impossible = f"{refused}; {remedy}"
            raise Unknown(self._impossible)

    def twin(self) -> Mapping[str, Actual]:
        """The claim of another host to our engine's id, by its path. Empty if none is known.

        A host that just got another name may find its own claim, as long as its former session
        lasts.
        """
        known = monotonic() - self._claimed_since
        if not self._claimant or known < 2 * self._settings.session_timeout:
            return {}
        return {self._claim: Actual("", Mark.TWIN, host=self._claimant)}

    def _look_at_claim(self, client: KazooClient) -> None:
        """Find out which host claims our engine's id. Nobody does: this one does it."""
        hostname = self._context.identity.hostname
        (answer,) = self._session.gather([client.get_async(self._claim)])
        claimant = ""
        if isinstance(answer, errors.NoNodeError):
            text = hostname.encode(errors="backslashreplace")
            self._session.gather([client.create_async(self._claim, text, ephemeral=True)])
        elif not isinstance(answer, Exception) and answer[1].ephemeralOwner:
            claimant = answer[0].decode(errors="replace")[:255]
        if claimant == hostname:
            claimant = ""
        if claimant != self._claimant:
            self._claimant, self._claimed_since = claimant, monotonic()

    def _paths(self, owner: str) -> list[str]:
        name = _hash(f"{owner}\0{self._context.identity.hostname}")
        return [f"{self._folder}/{name}-{number}" for number in range(SLOTS)]

    def _slots(self, client: KazooClient, owner: str) -> list[Slot]:
        paths = self._paths(owner)
        answers = self._session.gather(client.get_async(path) for path in paths)
        return [_slot(path, answer) for path, answer in zip(paths, answers, strict=True)]

    def _held(self, slot: Slot) -> list[str]:
        """The nodes under the base that hang on the session of a record."""
        former = Session(self._context, self._settings, (slot.session, slot.password))
        try:
            prefix = f"{self._base}/"
            (found,) = former.gather([ephemerals(former.connect(), prefix)])
        except SessionLost:
            return []
        finally:
            former.leave()
        if isinstance(found, Exception):
            raise Unknown(reason_for(found))
        return [path for path in found if is_service(path, self._base)]

    def _make(self, client: KazooClient, slot: Slot) -> Exception | None:
        """Make our record in this slot. Returns why that failed."""
        error = self._write(client, slot)
        if isinstance(error, errors.NoNodeError) and slot.version is None:
            self._session.gather(client.create_async(path) for path in above([slot.path]))
            error = self._write(client, slot)
        return error

    def _write(self, client: KazooClient, slot: Slot) -> Exception | None:
        transaction = client.transaction()
        if slot.version is not None:
            transaction.delete(slot.path, slot.version)
        data = self._session.password.hex().encode()
        acl = CREATOR_ALL_ACL if self._settings.credential else None
        transaction.create(slot.path, data, acl, ephemeral=True)
        return failure(*self._session.gather([transaction.commit_async()]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:20]


def _slot(path: str, answer: Any) -> Slot:
    """A slot as it was read. Anybody may have written anything into it.

    A session that made a record is the record's holder, as ZooKeeper itself tells. So nobody can
    send us to the session of somebody else.
    """
    if isinstance(answer, errors.NoNodeError):
        return Slot(path)
    if isinstance(answer, Exception):
        return Slot(path, session=-1, version=CLOSED)
    data, stat = answer
    if not stat.ephemeralOwner or not PASSWORD.fullmatch(data):
        return Slot(path, version=stat.version)
    return Slot(path, stat.ephemeralOwner, bytes.fromhex(data.decode()), stat.version)
