"""Five minutes of maintenance on Consul's node: with ``-ttl``, no service vanishes.

Run by ``make faults``. A critical check of the node makes every service critical, and Consul
removes what stays critical. The agent keeps its own services from that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from support.agent import Agent
from support.consul import put
from support.engine import Dockerd
from support.servers import Consul
from support.wait import until

WORDS = ("-ip", "127.10.0.1", "-hostname", "h", "-ttl", "30", "-ttl-refresh", "10", "-resync", "60")
NAMES = [f"web{number}" for number in range(5)]
WANTED = {f"h:{name}:80" for name in NAMES}


def standing(consul: Consul) -> set[str]:
    """The services that stand at the agent."""
    return {key for key in consul.api("agent/services") if key in WANTED}


def passing(consul: Consul) -> bool:
    """Whether readers find every service healthy."""
    rows = [row for name in NAMES for row in consul.api(f"health/service/{name}?passing")]
    return {row["Service"]["ID"] for row in rows} == WANTED


def checks(consul: Consul) -> list[str]:
    """The state of each check, for an error message."""
    rows = consul.api("health/state/any")
    return [f"{row['CheckID']} is {row['Status']}: {row['Output']}" for row in rows]


def maintain(consul: Consul, seconds: float) -> tuple[int, int]:
    """Put the node into maintenance. Returns the number of looks, and how many missed a service."""
    looks = missing = 0
    put(consul, "agent/maintenance?enable=true&reason=trial")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        looks += 1
        missing += standing(consul) != WANTED
        time.sleep(0.2)
    put(consul, "agent/maintenance?enable=false")
    return looks, missing


def trial(folder: Path, seconds: float) -> bool:
    """Run it and print one line. Returns whether no service vanished."""
    consul, engine = Consul(folder / "consul"), Dockerd(folder / "engine")
    agent = Agent(folder, [*WORDS, f"consul://{consul.address}"], engine.host)
    try:
        consul.start()
        engine.start()
        engine.api.import_image("web", expose=[80])
        for name in NAMES:
            engine.api.run(name, publish_all=True, env={"SERVICE_NAME": name})
        agent.start()
        until(lambda: passing(consul), agent.tail)
        version = consul.api("agent/self")["Config"]["Version"]
        looks, missing = maintain(consul, seconds)
        until(
            lambda: passing(consul), lambda: f"all healthy again: {checks(consul)}{agent.tail(30)}"
        )
        print(
            f"maintenance of Consul {version} for {seconds:g} s: {len(standing(consul))} of "
            f"{len(WANTED)} services stand and pass after it, {missing} of {looks} looks "
            "missed one",
            flush=True,
        )
        return not missing
    finally:
        agent.kill()
        consul.kill()
        engine.remove()


def main() -> int:
    """Run the trial. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="faults.maintenance", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="how long (300)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="maintenance-") as folder:
        return 0 if trial(Path(folder), given.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
