"""The host's own address: found late, changed, and followed by what is registered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.agent import Agent
from support.engine import Dockerd
from support.namespace import Namespace
from support.wait import until

NAMELESS = ("unshare", "--uts", "sh", "-c", 'hostname no-such-host.invalid && exec "$@"', "sh")


def test_a_network_that_comes_up_late_and_changes(clean_engine: Dockerd, tmp_path: Path) -> None:
    host = Namespace()
    path = tmp_path / "services.json"
    agent = Agent(
        tmp_path, [f"file://{path}"], clean_engine.host, prefix=[*host.command, *NAMELESS]
    )

    def inside(*words: str) -> None:
        subprocess.run(["ip", "-n", host.name, *words], check=True, capture_output=True)

    def targets() -> list[str]:
        return [group["targets"][0] for group in json.loads(path.read_text())]

    network = host.address.rpartition(".")[0]
    try:
        port = clean_engine.api.host_port(clean_engine.api.run("web1", publish_all=True))
        agent.start()
        agent.wait_log("published ports are not registered: no address of this host was found")
        agent.wait_log("web1 .*: not registered: 80/tcp: the host's address is not known")
        inside("route", "add", "default", "via", host.address)
        until(
            lambda: targets() == [f"{network}.2:{port}"], "the first", ignore=(OSError, ValueError)
        )
        inside("address", "add", f"{network}.3/24", "dev", "eth0")
        inside("address", "delete", f"{network}.2/24", "dev", "eth0")
        inside("address", "replace", f"{network}.3/24", "dev", "eth0")
        inside("route", "replace", "default", "via", host.address)
        until(
            lambda: targets() == [f"{network}.3:{port}"], "the second", ignore=(OSError, ValueError)
        )
    finally:
        agent.kill()
        host.remove()
