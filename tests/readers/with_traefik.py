"""Traefik, which asks Consul's catalog."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.process import Process
from support.servers import Consul, free_ports, loopback_ip, program
from support.wait import until

from readers.documented import block, replace
from readers.following import SERVICE, Reader, Scene

SHORTENED = "refreshInterval: 1s"


class Traefik(Reader):
    """Shows the instances behind the service, by Traefik's own API.

    `config` is the document's, with which Traefik asks every `interval` seconds.
    """

    def __init__(self, folder: Path, consul: Consul, config: str, interval: float) -> None:
        ip = loopback_ip()
        entry, api = (f"{ip}:{port}" for port in free_ports(ip, 2))
        own = {":8000": entry, "127.0.0.1:8080": api, "127.0.0.1:8500": consul.address}
        path = folder / "traefik.yml"
        path.write_text(replace(config, {f'"{old}"': f'"{new}"' for old, new in own.items()}))
        command = [program("traefik", package="make compatibility"), f"--configFile={path}"]
        self.programs = (Process("traefik", folder, command),)
        self.period = interval
        self._entry, self._api = f"http://{entry}/", f"http://{api}/api/"

    def addresses(self) -> set[str]:
        try:
            with urllib.request.urlopen(
                f"{self._api}http/services/{SERVICE}@consulcatalog", timeout=60
            ) as answer:
                servers = json.load(answer)["loadBalancer"]["servers"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return set()
        return {server["url"].removeprefix("http://") for server in servers}

    def answer(self, **headers: str) -> str:
        """The answer to a request, which is the address of an instance."""
        request = urllib.request.Request(self._entry, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode()).strip()


def tags() -> dict[str, str]:
    """The variable of the document."""
    name, _, value = block("Traefik", "").strip().partition("=")
    return {name: value}


@pytest.mark.parametrize("interval", [1, 15])
def test_consuls_catalog(scene: Scene, consul: Consul, tmp_path: Path, interval: float) -> None:
    """The document sets 1 s. Traefik's own default is 15 s."""
    config = block("Traefik", "yaml")
    if interval == 15:
        config = replace(config, {SHORTENED: ""})
    scene.variables |= tags()
    scene.follow(Traefik(tmp_path, consul, config, interval), f"consul://{consul.address}")


def test_watched_checks(scene: Scene, consul: Consul, tmp_path: Path) -> None:
    """With checks, Traefik need not ask at intervals."""
    config = replace(block("Traefik", "yaml"), {SHORTENED: "watch: true"})
    scene.variables |= tags()
    scene.variables |= {"SERVICE_CHECK_TCP": "true", "SERVICE_CHECK_INTERVAL": "1s"}
    scene.follow(Traefik(tmp_path, consul, config, 0), f"consul://{consul.address}")


def test_requests_by_a_rule_with_a_comma(scene: Scene, consul: Consul, tmp_path: Path) -> None:
    traefik = Traefik(tmp_path, consul, block("Traefik", "yaml"), 1)
    scene.variables |= tags()
    wanted = scene.run(2, f"consul://{consul.address}")
    try:
        traefik.start()

        def answers() -> set[str]:
            return {traefik.answer(**{"X-Tier": "gold"}) for _ in range(6)}

        until(lambda: answers() == wanted, traefik.tail, ignore=(OSError,))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            traefik.answer(**{"X-Tier": "silver"})
    finally:
        traefik.stop()
