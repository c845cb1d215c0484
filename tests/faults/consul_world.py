"""Consul: three servers and two client agents, with tokens."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from support.consul import MASTER
from support.servers import Consul, consul_cluster
from support.wait import until
from support.web import fetch

from faults.world import BUSY, READ_ERRORS, STRANGER, STRANGERS_ADDRESS, Record, World, first

# Who gives no token may do everything, as the tests' eyes do. A token that Consul does not know
# may do nothing. Consul keeps in mind for a second what a token may do.
TOKENS: Mapping[str, Any] = {
    "primary_datacenter": "dc1",
    "acl": {
        "enabled": True,
        "default_policy": "allow",
        "token_ttl": "1s",
        "tokens": {"initial_management": MASTER},
    },
}


class ConsulWorld(World):
    """Three servers and two client agents. The agent registers with either client."""

    name = "consul"
    options = ("-resync", "3")
    clones_options = ("-ttl", "5", "-ttl-refresh", "1")
    tls = ("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")
    secret_kinds = ("rotate", "revoke")
    proxy_kinds = (*World.proxy_kinds, *BUSY)
    config = TOKENS

    def __init__(self, folder: Path, ip: str = "127.0.0.1", **options: Any) -> None:
        self._servers, clients = consul_cluster(folder, 3, 2, config=self.config, **options)
        members = [*clients, *self._servers]
        super().__init__(members, [client.address for client in clients], folder, ip)
        self._accessor = ""

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "CONSUL_HTTP_TOKEN_FILE": str(self.secret)}

    def guarded(self) -> bool:
        known = [token["AccessorID"] for token in self._manage("GET", "tokens")]
        if self._accessor not in known:
            self._replace()
        return True

    def _replace(self) -> None:
        """Write a new token into the file."""
        made = self._manage("PUT", "token", {"Description": "the agents'"})
        self._accessor = made["AccessorID"]
        self.write_secret(made["SecretID"])

    def _manage(self, method: str, path: str, body: object = None) -> Any:
        """A call of the API of ACLs, to any server. May fail."""
        return self._ask(method, f"acl/{path}", None if body is None else json.dumps(body).encode())

    def _ask(self, method: str, path: str, data: bytes | None = None) -> Any:
        """A call of any API, to any server. May fail. None says that there is no such thing."""
        return first([partial(self._ask_one, s, method, path, data) for s in self._servers])

    @staticmethod
    def _ask_one(member: Consul, method: str, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(
            f"http://{member.address}/v1/{path}", data, {"X-Consul-Token": MASTER}, method=method
        )
        try:
            return json.loads(fetch(request, timeout=2))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def begin_rotation(self, kind: str) -> None:
        """The old token goes a while after the new one stands in the file, or a while before."""
        self._old = self._accessor
        if kind == "rotate":
            self._replace()
        else:
            self._manage("DELETE", f"token/{self._old}")

    def end_rotation(self, kind: str) -> None:
        if kind == "revoke":
            self._replace()
        elif self._old != self._accessor:
            self._manage("DELETE", f"token/{self._old}")

    def entries(self) -> list[Record]:
        return list(first([lambda s=s: self._catalog(s) for s in self._servers]))  # type: ignore[misc]

    def _catalog(self, server: Consul) -> list[Record]:
        found = []
        for name in server.api("catalog/services?consistent"):
            if name not in ("consul", "registrator"):
                for row in server.api(f"catalog/service/{name}?consistent"):
                    found.append((row["ServiceID"], row["ServiceAddress"], row["ServicePort"]))
        return sorted(found)

    def wipe(self) -> None:
        for client in self._clients:
            for service_id in client.api("agent/services"):
                if service_id != STRANGER:
                    self._put(client, f"deregister/{service_id}")

    def details(self) -> str:
        held = [f"{c.address}: {sorted(c.api('agent/services'))}" for c in self._clients]
        return "held by the agents themselves: " + ", ".join(held)

    @property
    def _consuls(self) -> list[Consul]:
        return [each for each in self.members if isinstance(each, Consul)]

    @property
    def _clients(self) -> list[Consul]:
        return self._consuls[:2]

    def _put(self, client: Consul, path: str, body: object = None) -> None:
        url = f"http://{client.address}/v1/agent/service/{path}"
        data = b"" if body is None else json.dumps(body).encode()
        fetch(urllib.request.Request(url, data, method="PUT"), timeout=2)

    def plant(self) -> None:
        body = {"ID": STRANGER, "Name": STRANGER, "Address": STRANGERS_ADDRESS,
                "Port": self.port, "Tags": ["by hand"]}  # fmt: skip
        self._put(self._clients[0], "register", body)

    def uproot(self) -> None:
        self._put(self._clients[0], f"deregister/{STRANGER}")

    def strangers(self) -> object:
        # Consul counts anew after a restart: the index says nothing.
        found = dict(self._clients[0].api("agent/services").get(STRANGER, {}))
        return {k: v for k, v in found.items() if not k.endswith("Index")}

    def spoil(self, service_id: str, kind: str) -> None:
        for client in self._clients:
            found = client.api("agent/services").get(service_id)
            if found and kind == "edit":
                body = {"ID": service_id, "Name": found["Service"], "Address": "127.66.6.6"}
                self._put(client, "register", body | {"Port": 1, "Meta": found["Meta"]})
            elif found:
                self._put(client, f"deregister/{service_id}")

    def heal(self) -> None:
        """Wait, too, until every member has caught up and knows the agents' token."""
        super().heal()
        if self.secret.exists():
            until(self._knows_the_token, "every member knows the token", ignore=READ_ERRORS)

    def _knows_the_token(self) -> bool:
        token = {"X-Consul-Token": self.secret.read_text()}
        return all(member.api("acl/token/self", token) for member in self._consuls)

    def serves(self) -> bool:
        nodes = [member.api("agent/members") for member in self._consuls]
        return all(sum(m["Status"] == 1 for m in seen) == 5 for seen in nodes)
