"""A host moves over from gliderlabs/registrator: its entries are adopted without a gap."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RunAgent
from parity import test_parity as parity
from support.engine import Dockerd
from support.servers import Consul
from support.wait import until

HOST = socket.gethostname()
CASES = [case for case in parity.DOCUMENT["cases"] if not case.get("options")]
FIELDS = ("name", "tags", "port", "address", "meta")


@pytest.fixture
def own_consul(tmp_path: Path) -> Iterator[Consul]:
    made = Consul(tmp_path / "consul")
    made.start()
    yield made
    made.remove()


def register(consul: Consul, service_id: str, record: dict[str, Any]) -> None:
    """As the original does: without an owner's mark."""
    body = {"id": service_id, **{field: record[field] for field in FIELDS}}
    if record.get("check"):
        body["check"] = record["check"]
    request = urllib.request.Request(
        f"http://{consul.address}/v1/agent/service/register",
        json.dumps(body).encode(),
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=60).close()


def created(consul: Consul) -> dict[str, int]:
    """When each service came into the catalog: another index tells of a gap, however short."""
    names = consul.api("catalog/services")
    rows = [row for name in names for row in consul.api(f"catalog/service/{name}")]
    return {row["ServiceID"]: row["CreateIndex"] for row in rows}


class Watch(threading.Thread):
    """Looks at the registry all the time, and notes what is missing, and who is not well."""

    def __init__(self, consul: Consul, wanted: set[str]) -> None:
        super().__init__(daemon=True)
        self._consul = consul
        self._wanted = wanted
        self._end = threading.Event()
        self._healthy = self.passing()
        self.looks = 0
        self.missing: set[str] = set()
        self.failed: Exception | None = None

    def passing(self) -> set[str]:
        return {each["ServiceID"] for each in self._consul.api("health/state/passing")}

    def run(self) -> None:
        try:
            while not self._end.is_set():
                self.missing |= self._wanted - self._consul.api("agent/services").keys()
                self.missing |= {f"{each} is not well" for each in self._healthy - self.passing()}
                self.looks += 1
        except Exception as error:
            self.failed = error

    def stop(self) -> None:
        self._end.set()
        self.join(60)
        assert self.failed is None, self.failed


def on_a_network_of_its_own(engine: Dockerd) -> dict[str, dict[str, Any]]:
    """A container of a compose file, as the original has it without ``-ip``: at its own address."""
    engine.api.network_create("shop_default")
    shop = engine.api.run("shop", "web", ports={"80/tcp": ("0.0.0.0", 0)}, network="shop_default")
    own = engine.api.inspect(shop)["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"]
    record = {"name": "web", "tags": [], "port": engine.api.host_port(shop), "address": own}
    return {f"{HOST}:shop:80": record | {"meta": {}}}


def test_the_originals_entries_are_adopted(
    clean_engine: Dockerd, own_consul: Consul, agent: RunAgent
) -> None:
    parity.import_images(clean_engine)
    records: dict[str, dict[str, Any]] = {}
    for case in CASES:
        inspected = parity.run(clean_engine, case)
        records |= parity.expected(case, inspected, "consul")
    records |= on_a_network_of_its_own(clean_engine)
    for service_id, record in records.items():
        # The original has the tags in another order.
        register(own_consul, service_id, {**record, "tags": record["tags"][::-1]})
    gone = {f"{HOST}:gone:80": parity.ADDRESS, f"{HOST}:gone:53:udp": parity.ADDRESS}
    others = {
        "elsewhere:web:80": "192.0.2.99",
        # Another machine of the same name.
        f"{HOST}:twin:80": "192.0.2.98",
        "by-hand": parity.ADDRESS,
    }
    for service_id, address in {**gone, **others}.items():
        record = {"name": "old", "tags": [], "port": 8080, "address": address, "meta": {}}
        register(own_consul, service_id, record)

    until(lambda: created(own_consul).keys() >= {*records, *gone, *others}, "the catalog")
    before = created(own_consul)
    watch = Watch(own_consul, {*records, *others})
    watch.start()
    agent("-ip", parity.ADDRESS, f"consul://{own_consul.address}")

    def adopted() -> bool:
        now = own_consul.api("agent/services")
        marked = {key for key, each in now.items() if "registrator-owner" in each["Meta"]}
        return marked == records.keys() and not gone.keys() & now.keys()

    until(adopted, lambda: str(sorted(own_consul.api("agent/services"))))
    looked = watch.looks
    until(lambda: watch.looks > looked + 20, "some more looks")
    watch.stop()
    assert watch.missing == set()
    assert own_consul.api("agent/services").keys() == {*records, *others}
    until(lambda: not gone.keys() & created(own_consul).keys(), "the catalog without leftovers")
    now = created(own_consul)
    assert {key: now.get(key) for key in records} == {key: before[key] for key in records}
