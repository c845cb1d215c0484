"""Consul's key-value store: the cluster of `ConsulWorld`, with keys in place of services."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from support.servers import Consul, Server
from support.wait import until

from faults.consul_world import TOKENS, ConsulWorld
from faults.world import READ_ERRORS, STRANGER, STRANGERS_ADDRESS, Record, World

PREFIX, MANIFESTS = "services/", ".registrator/services/"
SPOILT = "127.66.6.6:1"

Row = Mapping[str, Any]


class ConsulKVWorld(ConsulWorld):
    """The agents write with either client. The clone has a session, with Consul's least TTL.

    `erase` takes the agents' manifests with the keys. `expire` ends every session. `edit` keeps the
    flags of a key, as Consul's page does, and `overwrite` loses them, as ``consul kv put`` does.
    A client that gets SIGTERM leaves the cluster, with every session that was opened there.
    """

    name = "consulkv"
    rest = "/services?timeout=1"
    clones_options = ("-ttl", "10", "-ttl-refresh", "1")
    config: Mapping[str, Any] = {
        **TOKENS,
        "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
    }
    losses = (*World.losses, "erase")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._leaving: set[Server] = set()

    def targets(self) -> dict[str, tuple[str, ...]]:
        clients = {f"member {i}": (*self.member_kinds, "leave") for i in range(len(self._clients))}
        store = {"store": ("erase", "expire", "overwrite"), "manifest": ("delete", "edit", "name")}
        return {**super().targets(), **clients, **store}

    def begin(self, target: str, kind: str) -> None:
        if target not in ("manifest", "store"):
            super().begin(target, kind)
            return
        with contextlib.suppress(*READ_ERRORS):
            if target == "manifest":
                self._spoil_manifests(kind)
            elif kind == "erase":
                for place in (MANIFESTS, PREFIX):
                    self._ask("DELETE", f"kv/{place}?recurse")
                self.plant()
            elif kind == "expire":
                for session in self._sessions():
                    self._ask("PUT", f"session/destroy/{session['ID']}")
            else:
                self._spoil_some(kind)

    def _begin_cluster(self, kind: str) -> None:
        if kind in ("edit", "delete"):
            with contextlib.suppress(*READ_ERRORS):
                self._spoil_some(kind)
        else:
            super()._begin_cluster(kind)

    def _spoil_some(self, kind: str) -> None:
        """Spoil the first entry, which is the clone's, and the last one, which is the agent's."""
        ours = [service_id for service_id, _, _ in self.ours()]
        for service_id in {*ours[:1], *ours[-1:]}:
            self.spoil(service_id, kind)

    def break_member(self, member: Server, kind: str) -> None:
        if kind != "leave":
            super().break_member(member, kind)
        elif member.running:
            self._leaving.add(member)
            member.signal(signal.SIGTERM)

    def _revive(self, members: Sequence[Server]) -> None:
        for member in self._leaving.intersection(members):
            member.stop(10)
            self._leaving.discard(member)
        super()._revive(members)

    def entries(self) -> list[Record]:
        found = []
        for row in self._rows(PREFIX):
            address, _, port = _text(row).rpartition(":")
            found.append((row["Key"].rpartition("/")[2], address, int(port)))
        return sorted(found)

    def _rows(self, prefix: str) -> list[Row]:
        return list(self._ask("GET", f"kv/{prefix}?recurse&consistent") or ())

    def _sessions(self) -> list[Row]:
        return list(self._ask("GET", "session/list?consistent"))

    def _row(self, key: str) -> Row:
        return dict((self._ask("GET", f"kv/{quote(key)}?consistent") or [{}])[0])

    def _put_key(self, row: Row, key: str, value: str, flags: int = 0) -> None:
        """Write a key that is as it was seen.

        So a server that was frozen cannot carry the write out later once more.
        """
        index = row.get("ModifyIndex", 0)
        self._ask("PUT", f"kv/{quote(key)}?cas={index}&flags={flags}", value.encode())

    def _delete(self, row: Row) -> None:
        self._ask("DELETE", f"kv/{quote(row['Key'])}?cas={row['ModifyIndex']}")

    def details(self) -> str:
        rows = [
            (row["Key"], _text(row), row["Flags"], row.get("Session", ""), row["ModifyIndex"])
            for row in (*self._rows(PREFIX), *self._rows(MANIFESTS))
        ]
        sessions = [(each["ID"], each["Name"]) for each in self._sessions()]
        return f"keys and manifests: {rows}, sessions: {sessions}"

    def wipe(self) -> None:
        self._ask("DELETE", f"kv/{PREFIX}?recurse")
        self.plant()

    def plant(self) -> None:
        key = f"{PREFIX}{STRANGER}/{STRANGER}"
        self._put_key(self._row(key), key, f"{STRANGERS_ADDRESS}:{self.port}")

    def uproot(self) -> None:
        if row := self.strangers():
            self._delete(row)

    def strangers(self) -> Row:
        return self._row(f"{PREFIX}{STRANGER}/{STRANGER}")

    def spoil(self, service_id: str, kind: str) -> None:
        for row in self._rows(PREFIX):
            if row["Key"].endswith(f"/{service_id}"):
                if kind == "delete":
                    self._delete(row)
                else:
                    flags = row["Flags"] if kind == "edit" else 0
                    self._put_key(row, row["Key"], SPOILT, flags)

    def _spoil_manifests(self, kind: str) -> None:
        """Delete them, write what nobody can read, or add names that are not the agents'."""
        for row in self._rows(MANIFESTS):
            if kind == "delete":
                self._delete(row)
            elif kind == "edit":
                self._put_key(row, row["Key"], "{")
            else:
                body = json.loads(_text(row))
                body["keys"] += [f"{STRANGER}/{STRANGER}", "no/such:key:80"]
                self._put_key(row, row["Key"], json.dumps(body))

    def heal(self) -> None:
        """Wait, too, until who overwrote keys has taken it back.

        Nothing tells an agent that starts that such a key was its own (see the registry's page).
        """
        super().heal()
        until(self._taken_back, "no key is overwritten", ignore=READ_ERRORS)

    def _taken_back(self) -> bool:
        found = [row for row in self._rows(PREFIX) if not row["Flags"] and _text(row) == SPOILT]
        for row in found:
            self._delete(row)
        return not found

    def serves(self) -> bool:
        return super().serves() and all(map(self._writes, self._consuls))

    def _writes(self, member: Consul) -> bool:
        return bool(self._ask_one(member, "PUT", "kv/probe", b""))


def _text(row: Row) -> str:
    return base64.b64decode(row["Value"] or "").decode()
