"""Record a real engine's answers for the simulated engine: ``python -m benchmarks.record``.

It writes ``recorded/*.json``: the engine's version and information. For one ordinary container, it
writes a listing, an inspection and the events of its start and end. It replaces the names and paths
of this machine.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.docker_api import DockerAPI
from support.engine import Dockerd
from support.wait import until

FOLDER = Path(__file__).with_name("recorded")
API = "/v1.41"
NAME, HOST_PORT = "bench-0", 10000
ENV = {"SERVICE_TAGS": "blue,http", "SERVICE_REGION": "west"}
LABELS = {
    "com.docker.compose.project": "bench",
    "com.docker.compose.service": "web",
    "SERVICE_VERSION": "1.4.2",
}

# Replacements for fields of the engine's information that tell of this machine or of servers.
MACHINE: dict[str, Any] = {
    "ID": "SIMU:LATE:DENG:INES:IMUL:ATED:ENGI:NESI:MULA:TEDE:NGIN:ESIM",
    "Name": "bench-host",
    "KernelVersion": "6.1.0",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "NCPU": 2,
    "MemTotal": 8 * 2**30,
    "IndexServerAddress": "",
    "RegistryConfig": None,
    "Warnings": None,
    "SystemTime": "2026-01-01T00:00:00Z",
}


def start(api: DockerAPI, number: int) -> str:
    """Start a container like the one with this number in the simulated engine."""
    return api.run(
        f"bench-{number}",
        ports={"80/tcp": ("0.0.0.0", HOST_PORT + number)},
        env=ENV,
        labels=LABELS,
    )


def record(engine: Dockerd) -> dict[str, Any]:
    """Every answer, by the name of its file."""
    container = start(engine.api, 0)
    get = engine.api.request
    answers = {
        "version": get("GET", f"{API}/version"),
        "info": get("GET", f"{API}/info"),
        "row": get("GET", f"{API}/containers/json")[0],
        "inspect": get("GET", f"{API}/containers/{container}/json"),
        "start": _events(engine.api, "connect", "start"),
    }
    engine.api.kill(container)
    until(lambda: _events(engine.api, "disconnect"), "its end")
    return answers | {"die": _events(engine.api, "die", "disconnect")}


def _events(api: DockerAPI, *actions: str) -> list[Any]:
    """The events of these actions since the engine's start, at most one of each."""
    found = []
    for action in actions:
        filters = json.dumps({"type": ["container", "network"], "event": [action]})
        query = urlencode({"since": 1, "until": int(time.time()) + 1, "filters": filters})
        found.append(api.request("GET", f"{API}/events?{query}"))
    return sorted(filter(None, found), key=lambda event: event["timeNano"])


def general(answers: dict[str, Any], engine: Dockerd) -> dict[str, Any]:
    """The answers, without names and paths of this machine."""
    answers["info"] = answers["info"] | MACHINE
    text = json.dumps(answers).replace(str(engine.data), "/var/lib/docker")
    text = text.replace(str(engine.root), "/run/docker")
    version = answers["version"]["KernelVersion"]
    return dict(json.loads(re.sub(re.escape(version), MACHINE["KernelVersion"], text)))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        engine = Dockerd(Path(folder))
        try:
            engine.start()
            engine.api.import_image("web", expose=[80])
            answers = general(record(engine), engine)
        finally:
            engine.remove()
    for name, answer in answers.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(answer, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
