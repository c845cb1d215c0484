"""A gateway in JavaScript, over an ensemble of three ZooKeepers."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.process import Process
from support.servers import ZooKeeper, free_ports, loopback_ip, program, zookeeper_cluster
from support.wait import until
from support.zookeeper import wait_whole

from readers.documented import block
from readers.following import SERVICE, Reader, Scene


class Gateway(Reader):
    """The gateway of the document."""

    def __init__(self, folder: Path, ensemble: Sequence[ZooKeeper]) -> None:
        ip = loopback_ip()
        (port,) = free_ports(ip, 1)
        script = folder / "gateway.js"
        script.write_text(block("Node", "js"))
        listen = f"{ip}:{port}"
        words = [str(script), addresses(ensemble), listen, SERVICE]
        self.programs = [Process("gateway", folder, [program("node", package="nodejs"), *words])]
        self._url = f"http://{listen}/"

    def addresses(self) -> set[str]:
        return set(json.loads(self.get())[SERVICE])

    def get(self, path: str = "") -> str:
        """The body of an answer."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=60) as answer:
            return str(answer.read().decode().strip())


def addresses(ensemble: Sequence[ZooKeeper]) -> str:
    return ",".join(each.address for each in ensemble)


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[list[ZooKeeper]]:
    members = zookeeper_cluster(tmp_path / "ensemble")
    yield members
    for each in members:
        each.remove()


def test_the_instances(scene: Scene, ensemble: Sequence[ZooKeeper], tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, ensemble)
    scene.follow(gateway, f"zookeeper://{addresses(ensemble)}/services")
    gateway.start()
    try:
        shows(gateway, scene.addresses)
        for member in ensemble:
            member.kill()
            follows_a_change(scene, gateway)
            member.start()
            wait_whole(ensemble)
        loses_its_session(ensemble, gateway)
        follows_a_change(scene, gateway)
        passes_requests_on(scene, gateway)
    finally:
        gateway.stop()


def follows_a_change(scene: Scene, gateway: Gateway) -> None:
    """One of the instances stops and starts again."""
    one = min(scene.addresses)
    container = f"{SERVICE}{one.rpartition(':')[2]}"
    scene.engine.api.stop(container)
    shows(gateway, scene.addresses - {one})
    scene.engine.api.start(container)
    shows(gateway, scene.addresses)


def loses_its_session(ensemble: Sequence[ZooKeeper], gateway: Gateway) -> None:
    """It is frozen for longer than the ensemble waits."""

    def sessions() -> int:
        told = "".join(member.four_letters("mntr") for member in ensemble)
        return max(int(count) for count in re.findall(r"zk_global_sessions\t(\d+)", told))

    before = sessions()
    (program,) = gateway.programs
    program.freeze()
    until(lambda: sessions() < before, "the end of the session")
    program.thaw()


def shows(gateway: Gateway, wanted: set[str]) -> None:
    until(lambda: gateway.addresses() == wanted, gateway.tail, ignore=(OSError,))


def passes_requests_on(scene: Scene, gateway: Gateway) -> None:
    """To each instance, until there is none."""

    def answers() -> set[str]:
        return {gateway.get(f"{SERVICE}/") for _ in range(10)}

    until(lambda: answers() == scene.addresses, "an answer of each instance")
    scene.engine.api.clear()
    shows(gateway, set())
    with pytest.raises(urllib.error.HTTPError, match="503"):
        gateway.get(f"{SERVICE}/")
