"""A real Prometheus that scrapes one agent and evaluates the alert rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.servers import Server, free_ports, program
from support.wait import until

ALERTS = Path(__file__).resolve().parents[2] / "monitoring/alerts.yml"

# What a question to a server that is just coming up may raise.
NOT_YET = (OSError, ValueError)


def shortened(rules: str) -> str:
    """The rules for a fault of seconds, by one rule for all.

    Each window lasts 4 s, each ``for`` lasts 1 s, and a threshold of 60 s is one of 10 s.
    """
    rules = re.sub(r"\[\d+m\]", "[4s]", rules).replace("[10m:1m]", "[4s:1s]")
    return re.sub(r"for: \d+m", "for: 1s", rules).replace("> 60", "> 10")


class Prometheus(Server):
    """A Prometheus with the given `rules`. It scrapes `target` every `interval` seconds."""

    def __init__(self, folder: Path, target: str, rules: str, interval: int = 1) -> None:
        super().__init__("prometheus", folder)
        self.target = target
        self._binary = program("prometheus", package="prometheus")
        (port,) = free_ports(self.ip, 1)
        self.address = f"{self.ip}:{port}"
        (folder / "alerts.yml").write_text(rules)
        job = {"job_name": "registrator", "static_configs": [{"targets": [target]}]}
        times = {"scrape_interval": f"{interval}s", "evaluation_interval": f"{interval}s"}
        config = {"global": times, "scrape_configs": [job], "rule_files": ["alerts.yml"]}
        (folder / "prometheus.yml").write_text(json.dumps(config))

    def command(self) -> list[str]:
        return [
            self._binary,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address={self.address}",
        ]

    def ready(self) -> bool:
        return bool(self._get(self.address, "/api/v1/status/runtimeinfo")["status"] == "success")

    def query(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The answer to a query: the labels and the value of each series."""
        result = self._ask(f"query?{urlencode({'query': query})}")["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def value(self, query: str) -> float | None:
        """The only value that a query gives, or None."""
        found = self.query(query)
        return found[0][1] if len(found) == 1 else None

    def wait(self, query: str, value: float) -> None:
        """Wait until a query gives one value, and this one."""
        until(
            lambda: self.value(query) == value,
            lambda: f"{query} to be {value}, and not {self.query(query)}: {self.tail()}",
            ignore=NOT_YET,
        )

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = self._ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def fires(self, *alerts: str) -> None:
        """Wait until exactly these alerts fire."""
        until(
            lambda: self.firing() == set(alerts),
            lambda: f"the alerts {alerts}, and not {self.firing()}",
            ignore=NOT_YET,
        )

    def fired(self) -> set[str]:
        """The names of all alerts that have ever fired, by Prometheus' own record."""
        found = self.query(
            'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1d]))'
        )
        return {labels["alertname"] for labels, _ in found}

    def _ask(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._get(self.address, f"/api/v1/{path}")["data"]
        return answer
