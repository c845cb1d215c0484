"""The example of a rolling update: no request fails with the agent's two options, and some without.

Run by ``make faults``. Each figure is of ten updates, or of as many as are given.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from support.host import Host
from support.images import make_images
from support.servers import program
from support.wait import until

FOLDER = Path(__file__).resolve().parents[2] / "examples/rolling-update"
# The example takes the agent's options from here, and has both by default.
KINDS = {
    "-health and -deregister-on-stop": None,
    "-health only": "-health",
    "-deregister-on-stop only": "-deregister-on-stop",
    "neither": "",
}


class Count(NamedTuple):
    """The counts of the load generator of the example."""

    requests: int
    failed: int


def update(host: Host, updates: int, options: str | None = None, instances: int = 2) -> Count:
    """Start the example, update it so many times under load, and take it down."""
    program("docker-compose", package="docker-compose")
    environ = {} if options is None else {"OPTIONS": options}

    def compose(*words: str) -> str:
        return host.run("docker-compose", *words, folder=FOLDER, environ=environ)

    try:
        compose("up", "-d", "--scale", f"web={instances}", "registrator", "web", "nginx", "follow")
        until(lambda: answer(host) == "release 1", lambda: compose("logs", "registrator"))
        until(lambda: healthy(host) == instances, "healthy instances")
        compose("up", "-d", "load")
        for number in range(updates):
            renew(host, {**environ, "RELEASE": str(number + 2)})
        until(lambda: answer(host) == f"release {updates + 1}", lambda: compose("logs"))
        compose("stop", "load")
        match = re.search(r"(\d+) requests, (\d+) failed", log := compose("logs", "load"))
        assert match, log
        return Count(int(match[1]), int(match[2]))
    finally:
        compose("down", "-v", "-t", "0")


def renew(host: Host, environ: Mapping[str, str]) -> None:
    """One update, by the script of the example."""
    host.run("./update.sh", folder=FOLDER, environ=environ)


def answer(host: Host) -> str:
    """The body that a request to nginx returns."""
    return host.run("curl", "-s", "http://127.0.0.1:8080/", check=False).strip()


def healthy(host: Host) -> int:
    """How many containers are healthy."""
    words = "docker ps -q --filter health=healthy --filter label=com.docker.compose.service=web"
    return len(host.run(*words.split()).split())


def main() -> int:
    """Print a line for each choice of options. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults.rolling", description=__doc__)
    parser.add_argument("--updates", type=int, default=10, help="how many (10)")
    given = parser.parse_args()
    counts = {}
    with tempfile.TemporaryDirectory(prefix="rolling-") as folder:
        host = Host(Path(folder))
        try:
            host.start()
            make_images(host)
            for kind, options in KINDS.items():
                counts[kind] = update(host, given.updates, options)
                print(
                    f"{given.updates} rolling updates with {kind}: "
                    f"{counts[kind].failed} of {counts[kind].requests} requests failed",
                    flush=True,
                )
        finally:
            host.remove()
    both, *_, neither = counts.values()
    return 0 if not both.failed and neither.failed else 1


if __name__ == "__main__":
    sys.exit(main())
