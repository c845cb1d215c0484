"""etcd: three members that ask for passwords."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.servers import Etcd, Server, etcd_cluster
from support.web import fetch

from faults.world import READ_ERRORS, STRANGER, STRANGERS_ADDRESS, Record, World, first

ROOT = {"name": "root", "password": "r00t"}
AGENT = "agent"
# A login lasts for a second without a call, and passwords are quick to check.
LOGINS = ("--auth-token-ttl=1", "--bcrypt-cost=4")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class EtcdWorld(World):
    """Three members, and a lease of 5 seconds."""

    name = "etcd"
    options = ("-resync", "3", "-ttl", "5", "-ttl-refresh", "1")
    rest = "/services?timeout=1"
    tls = ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY")
    secret_kinds = ("rotate",)
    world_kinds = (*World.world_kinds, "expire")

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        members = etcd_cluster(folder, 3, flags=LOGINS, **options)
        super().__init__(members, [member.address for member in members], folder, ip)
        self._passwords = 0

    def environ(self) -> dict[str, str]:
        login = {"ETCDCTL_USER": AGENT, "ETCDCTL_PASSWORD_FILE": str(self.secret)}
        return {**super().environ(), **login}

    def guarded(self) -> bool:
        if not self._login(self.readers[0]):
            for path, body in self._users():
                # Some may stand already.
                with contextlib.suppress(urllib.error.HTTPError):
                    self._post(f"auth/{path}", body)
        if not self._accepted():
            self.begin_rotation("")
            self.end_rotation("")
        return True

    def _accepted(self) -> bool:
        """Whether the password in the file is right."""
        try:
            login = {"name": AGENT, "password": self.secret.read_text()}
            return bool(self._login(self.readers[0], login))
        except (FileNotFoundError, urllib.error.HTTPError):
            return False

    def _users(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("user/add", ROOT),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": AGENT, "password": "none yet"}),
            ("role/add", {"name": AGENT}),
            ("role/grant", {"name": AGENT, "perm": {"permType": "READWRITE", **self._range}}),
            ("user/grant", {"user": AGENT, "role": AGENT}),
            ("enable", {}),
        ]

    def begin_rotation(self, kind: str) -> None:
        """The password changes a while before the file does: a user has one alone."""
        self._passwords += 1
        self._post("auth/user/changepw", {"name": AGENT, "password": self._password})

    def end_rotation(self, kind: str) -> None:
        self.write_secret(self._password)

    @property
    def _password(self) -> str:
        return f"password {self._passwords}"

    def entries(self) -> list[Record]:
        rows = self._post("kv/range", self._range).get("kvs", ())
        found = []
        for row in rows:
            key, value = (base64.b64decode(row[part]).decode() for part in ("key", "value"))
            address, _, port = value.rpartition(":")
            found.append((key.rpartition("/")[2], address, int(port)))
        return sorted(found)

    @property
    def _range(self) -> dict[str, str]:
        ends = {"key": "/services/", "range_end": "/services0"}
        return {name: _base64(end) for name, end in ends.items()}

    def _post(self, path: str, body: object) -> Any:
        return first([lambda m=m: self._post_to(m, path, body) for m in self.readers])  # type: ignore[misc]

    def _post_to(self, member: Server, path: str, body: object, login: bool = True) -> Any:
        assert isinstance(member, Etcd)
        token = self._login(member) if login else ""
        request = urllib.request.Request(
            f"http://{member.address}/v3/{path}",
            json.dumps(body).encode(),
            {"Authorization": token} if token else {},
        )
        return json.loads(fetch(request, timeout=2))

    def _login(self, member: Server, who: Mapping[str, str] = ROOT) -> str:
        """A token, or nothing while nobody has to log in. May fail."""
        try:
            return str(self._post_to(member, "auth/authenticate", who, login=False)["token"])
        except urllib.error.HTTPError as error:
            if "not enabled" not in error.msg:
                raise
            return ""

    def leads(self, member: Server) -> bool:
        assert isinstance(member, Etcd)
        status = self._post_to(member, "maintenance/status", {})
        return bool(status["leader"] == status["header"]["member_id"])

    def wipe(self) -> None:
        self._post("kv/deleterange", self._range)
        self.plant()

    def plant(self) -> None:
        self._put(self._key, f"{STRANGERS_ADDRESS}:{self.port}")

    def uproot(self) -> None:
        self._post("kv/deleterange", {"key": _base64(self._key)})

    def strangers(self) -> object:
        rows = self._post("kv/range", {"key": _base64(self._key)}).get("kvs", ())
        return [(row["value"], row.get("lease"), row["version"]) for row in rows]

    def spoil(self, service_id: str, kind: str) -> None:
        for row in self._post("kv/range", self._range).get("kvs", ()):
            key = base64.b64decode(row["key"]).decode()
            if key.endswith(f"/{service_id}") and kind == "edit":
                self._put(key, "127.66.6.6:1")
            elif key.endswith(f"/{service_id}"):
                self._post("kv/deleterange", {"key": row["key"]})

    @property
    def _key(self) -> str:
        return f"/services/{STRANGER}/{STRANGER}"

    def _put(self, key: str, value: str) -> None:
        self._post("kv/put", {"key": _base64(key), "value": _base64(value)})

    def _begin_cluster(self, kind: str) -> None:
        if kind != "expire":
            super()._begin_cluster(kind)
            return
        with contextlib.suppress(*READ_ERRORS):
            for lease in self._post("lease/leases", {}).get("leases", ()):
                self._post("lease/revoke", {"ID": lease["ID"]})

    def serves(self) -> bool:
        for member in self.members:
            assert isinstance(member, Etcd)
            probe = {"key": _base64("probe"), "value": ""}
            self._post_to(member, "kv/put", probe)
        return True
