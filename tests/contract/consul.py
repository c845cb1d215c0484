"""Consul's agent and its key-value store, seen through its HTTP API and its own metrics."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3
from support.consul import put
from support.servers import Consul
from support.wait import until

from contract.registry import OTHER, OWNER, Registry
from registrator.backend import Backend
from registrator.uri import Address

NEIGHBOUR, NEIGHBOURS = "neighbour", "10.9.9.9"
STRANGERS = "0" * 32
# A count of requests in the metrics: method, path, number.
LABELLED = r'^consul_api_http_count{method="([A-Z]+)",path="([^"]*)"} (\d+)'
NAMED = r"^consul_http_([A-Z]+)_(\w+)_count (\d+)"
TELEMETRY: Mapping[str, Any] = {
    "telemetry": {"prometheus_retention_time": "1h", "disable_hostname": True}
}


class OverHTTP(Registry):
    """The part that both have in common. `suffix` is ``-tls``, ``-unix`` or nothing."""

    def __init__(self, server: Consul, environ: Mapping[str, str], suffix: str = "") -> None:
        super().__init__()
        self.server: Consul = server
        self.environ = environ if suffix == "-tls" else {}
        self.suffix = suffix

    def host(self, *before: str) -> str:
        """The part after ``://`` for this way to reach the server."""
        if self.suffix == "-unix":
            return f"{self.server.folder}/sock"
        own = self.server.tls_address if self.suffix == "-tls" else self.server.address
        return ",".join((*before, own))

    def text(self, path: str) -> tuple[str, Mapping[str, str]]:
        """Body and headers of an answer."""
        got = urllib3.request(
            "GET", f"http://{self.server.address}/v1/{path}", timeout=60, retries=False
        )
        return got.data.decode(), got.headers

    def pairs(self) -> Iterator[dict[str, Any]]:
        """All keys of the store."""
        yield from json.loads(self.text("kv/?recurse")[0] or "[]")

    def counted(self, methods: str) -> int:
        """Requests by the server's metrics. To look at these is not counted."""
        return sum(number for path, number in self._counts(methods) if "metrics" not in path)

    def _counts(self, methods: str) -> Iterator[tuple[str, int]]:
        """The path and the number of each kind of request."""
        text = self.text("agent/metrics?format=prometheus")[0]
        # From 1.13 on the second form is off, and both are there for some versions before.
        rows = re.findall(LABELLED, text, re.M) or re.findall(NAMED, text, re.M)
        for method, path, number in rows:
            if re.fullmatch(methods, method):
                yield path, int(number)

    def requests(self) -> int:
        return self.counted("[A-Z]+")

    def writes(self) -> int:
        return self.counted("PUT")

    def plant(self) -> None:
        put(self.server, f"kv/{self.token}x/web/host:c0:80", "10.0.0.1:1000")
        put(self.server, f"kv/{self.token}", "the place itself")
        put(
            self.server, f"kv/.registrator/{self.token}/{STRANGERS}/0", {"keys": ["web/host:c0:80"]}
        )
        for number, meta in enumerate(({}, {"registrator-owner": OTHER})):
            body = {
                "ID": f"{NEIGHBOUR}:c{number}:80",
                "Name": "web",
                "Address": NEIGHBOURS,
                "Meta": meta,
            }
            put(self.server, "agent/service/register", body)

    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.api("agent/services")
        return found

    def clean(self) -> None:
        for key in self.services():
            put(self.server, f"agent/service/deregister/{key}")
        urllib3.request(
            "DELETE", f"http://{self.server.address}/v1/kv/{self.token}?recurse", timeout=60
        )


class ConsulAgent(OverHTTP):
    """``consul``: the services of an agent."""

    leased: Mapping[str, float] = {"ttl": 30, "ttl_refresh": 10}
    guarded = False
    # One more for the owner, and one now and then for the keeper on a busy machine.
    most_writes, most_reads = 1010, 2
    keepalive_requests = 2

    def uri(self, *before: str) -> str:
        return f"consul{self.suffix}://{self.host(*before)}"

    def read(self) -> dict[str, str]:
        return {
            key: str(Address(each["Address"], each["Port"]))
            for key, each in self.services().items()
            if each["Address"] != NEIGHBOURS and not key.startswith("registrator:")
        }

    def outside(self) -> object:
        others = {k: v for k, v in self.services().items() if v["Address"] == NEIGHBOURS}
        return others, [*self.pairs()], self.nodes()

    def nodes(self) -> list[str]:
        return [node["Node"] for node in self.server.api("catalog/nodes")]

    def index(self) -> int:
        """The catalog's, once it has what the agent has."""

        def settled() -> int:
            node = self.server.config["node_name"]
            known = self.server.api(f"catalog/node/{node}")["Services"]
            known.pop("consul", None)
            before = self._index()
            return before if known.keys() == self.services().keys() else 0

        return until(settled, "the catalog to follow the agent")

    def _index(self) -> int:
        return max(
            int(self.text(path)[1]["X-Consul-Index"])
            for path in ("catalog/services", "health/state/any")
        )

    def end_session(self, backend: Backend) -> None:
        """Do what the Consul agent does a minute after the owner's TTL check has lapsed."""
        for key, each in self.services().items():
            if (each["Meta"] or {}).get("registrator-owner") == OWNER:
                put(self.server, f"agent/service/deregister/{key}")


class ConsulKV(OverHTTP):
    """``consulkv``: keys in the store. `option` is appended to the URI."""

    # Each look is due to renew the session.
    leased: Mapping[str, float] = {"ttl": 10, "ttl_refresh": 1}
    rewrites = True
    # 64 operations a transaction: two an entry under a session, up to two for the manifest. A look
    # takes one operation a key, and the manifest's parts with the one that may come next.
    most_writes, most_reads = 34, 17

    def __init__(
        self, server: Consul, environ: Mapping[str, str], suffix: str = "", option: str = ""
    ) -> None:
        super().__init__(server, environ, suffix)
        self.option = option

    def writes(self) -> int:
        """All but the renewals of sessions: on a busy machine, more of these come meanwhile."""
        return sum(number for path, number in self._counts("PUT") if "renew" not in path)

    def uri(self, *before: str) -> str:
        colon = ":" if self.suffix == "-unix" else ""
        return f"consulkv{self.suffix}://{self.host(*before)}{colon}/{self.token}{self.option}"

    def read(self) -> dict[str, str]:
        found = {
            pair["Key"]: base64.b64decode(pair["Value"] or "").decode()
            for pair in self.pairs()
            if pair["Key"].startswith(f"{self.token}/")
        }
        return {key: address_of(value) for key, value in found.items()}

    def outside(self) -> object:
        """All but the place and this host's manifests. A stranger's manifest counts."""
        place = re.compile(rf"(\.registrator/)?{self.token}/(?!{STRANGERS}/)")
        others = [pair for pair in self.pairs() if not place.match(pair["Key"])]
        return others, self.services()

    def index(self) -> int:
        return int(self.text("kv/?recurse")[1]["X-Consul-Index"])

    def end_session(self, backend: Backend) -> None:
        for session in {pair.get("Session") for pair in self.pairs()} - {None}:
            put(self.server, f"session/destroy/{session}")


def address_of(value: str) -> str:
    """Address and port in an entry's value, be it plain or JSON."""
    if not value.startswith("{"):
        return value
    fields = json.loads(value)
    return str(Address(fields["address" if "address" in fields else "host"], fields["port"]))
