"""etcd and SkyDNS in it, seen through etcdctl and the server's metrics."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import urllib3
from support import etcd
from support.servers import Etcd

from contract.consul import address_of
from contract.registry import Registry
from registrator.backend import Backend
from registrator.backends.etcd.lease import SLOTS
from registrator.backends.etcd.listing import PER_LISTING

LOGIN = "auth/authenticate"
ADMIN, AGENT = "root:r00t", "kim:p%40ss%3Aword"


class InEtcd(Registry):
    """``etcd``, ``etcd-tls`` and ``skydns2``.

    With `user` the server asks for passwords. The user is allowed everything, so that the backend
    alone keeps to its place.
    """

    # 128 operations a transaction, and the lease. A look also asks for the lease in use, and for
    # a part of those that were never asked for.
    most_writes, most_reads = 8 + 3, 8 + 1 + PER_LISTING
    listings = 1 + SLOTS // PER_LISTING

    def __init__(
        self,
        server: Etcd,
        environ: Mapping[str, str],
        scheme: str = "etcd",
        *,
        user: str = "",
        option: str = "",
    ) -> None:
        super().__init__()
        self.server: Etcd = server
        self.scheme = scheme
        self.environ = environ if scheme.endswith("-tls") else {}
        self.user = user
        self.option = option
        skydns = scheme.startswith("skydns2")
        self.path = f"/p{self.token}.local" if skydns else f"/p{self.token}"
        self.prefix = f"/skydns/local/p{self.token}" if skydns else self.path

    def uri(self, *before: str) -> str:
        own = self.server.tls_address if self.scheme.endswith("-tls") else self.server.address
        who = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{who}{','.join((*before, own))}{self.path}{self.option}"

    def ctl(self, *arguments: str) -> str:
        return etcd.ctl(self.server, *arguments, user=ADMIN if self.user else "")

    def everything(self) -> list[dict[str, Any]]:
        """Every key of the server."""
        all_keys = base64.b64encode(b"\0").decode()
        answer = self.post("kv/range", {"key": all_keys, "range_end": all_keys})
        pairs: list[dict[str, Any]] = answer.get("kvs", [])
        for pair in pairs:
            pair["key"] = base64.b64decode(pair["key"]).decode()
        return pairs

    def post(self, path: str, body: Mapping[str, str]) -> dict[str, Any]:
        """A call through etcd's own HTTP gateway, far quicker than etcdctl."""
        headers = {"Authorization": self.token_of(ADMIN)} if self.user and path != LOGIN else {}
        url = f"http://{self.server.address}/v3/{path}"
        answer = urllib3.request("POST", url, json=body, headers=headers, timeout=60, retries=False)
        assert answer.status == 200, answer.data
        found: dict[str, Any] = answer.json()
        return found

    @cache  # noqa: B019  (as short-lived as the test)
    def token_of(self, user: str) -> str:
        name, _, password = user.partition(":")
        token: str = self.post(LOGIN, {"name": name, "password": password})["token"]
        return token

    def read(self) -> dict[str, str]:
        return {
            pair["key"]: address_of(base64.b64decode(pair["value"]).decode())
            for pair in self.everything()
            if pair["key"].startswith(f"{self.prefix}/")
        }

    def plant(self) -> None:
        for key in (self.prefix, f"{self.prefix}x/web/host:c0:80", f"{self.prefix}0", "/web", "0"):
            self.ctl("put", key, "10.0.0.1:1000")

    def outside(self) -> object:
        return [p for p in self.everything() if not p["key"].startswith(f"{self.prefix}/")]

    def index(self) -> int:
        revision = re.search(r'"revision":(\d+)', self.ctl("get", "x", "--write-out=json"))
        assert revision is not None
        return int(revision[1])

    def requests(self) -> int:
        return etcd.requests(self.server, r"\w+")

    def end_session(self, backend: Backend) -> None:
        leases = {p.get("lease") for p in self.everything() if p["key"].startswith(self.prefix)}
        for lease in leases - {None}:
            self.ctl("lease", "revoke", f"{int(str(lease)):x}")

    def clean(self) -> None:
        self.ctl("del", self.prefix, "--prefix")


def ask_for_passwords(server: Etcd) -> None:
    """Make the users, and let nobody in without a password from now on."""
    for command in (
        f"user add {ADMIN}", "role add root", "user grant-role root root",
        "user add kim:p@ss:word", "role add all", "user grant-role kim all",
    ):  # fmt: skip
        etcd.ctl(server, *command.split())
    etcd.ctl(server, "role", "grant-permission", "all", "readwrite", "", "--from-key")
    etcd.ctl(server, "auth", "enable")
