"""The real command as a process of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.process import Process

# The agent reads these variables. A developer's own must not reach it.
READ_BY_AGENT = re.compile(
    r"(REGISTRATOR|CONSUL|ETCD|ETCDCTL|ZOOKEEPER|DOCKER|GRPC)_|(https?|all|no)_proxy$",
    re.IGNORECASE,
)


class Agent(Process):
    """``registrator`` with `words`, its options and URIs, on the engine at `docker_host`.

    `prefix` goes before the command, as what runs it in a network namespace does.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        docker_host: str,
        environ: Mapping[str, str] | None = None,
        name: str = "agent",
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(name, folder, [*prefix, sys.executable, "-m", "registrator", *words])
        self._environ = {"DOCKER_HOST": docker_host, **(environ or {})}

    def environment(self) -> Mapping[str, str]:
        """This process's own without what the agent reads, and with what the test gives."""
        own = {k: v for k, v in os.environ.items() if not READ_BY_AGENT.match(k)}
        return own | self._environ

    def start(self) -> None:
        """Run it, until its handlers for signals stand and its first line is written."""
        self.launch()
        self.wait_log(r"registrator \d\S* for ")
