"""Containers that hang: the engine answers no inspection of them."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Sequence
from pathlib import Path

from support.docker_api import APIError, DockerAPI

# Signals hang while a file exists: the engine holds the container's lock, and inspecting it waits.
RUNTIME = """\
#!/bin/sh
for word; do [ "$word" = kill ] && while [ -e {file} ]; do sleep 0.05; done; done
exec runc "$@"
"""


class Hanging:
    """A runtime by the name of ``hanging``. `flag` makes an engine know it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, runtime = folder / "hang", folder / "hanging"
        runtime.write_text(RUNTIME.format(file=self._file))
        runtime.chmod(0o755)
        self.flag = f"--add-runtime=hanging={runtime}"
        self._threads: list[threading.Thread] = []

    def hang(self, api: DockerAPI, containers: Sequence[str], rename: str = "") -> None:
        """Hang these containers of that runtime, from about now on.

        With `rename`, each gets a new name that begins so just before: somebody wants to inspect
        it while it hangs.
        """
        self._file.touch()
        for each in containers:
            self._threads.append(threading.Thread(target=self._signal, args=(api, each, rename)))
            self._threads[-1].start()

    @staticmethod
    def _signal(api: DockerAPI, container: str, rename: str) -> None:
        with contextlib.suppress(APIError, OSError, http.client.HTTPException):
            if rename:
                api.rename(container, f"{rename}-{container[:6]}")
            api.kill(container, "USR1")

    def go_on(self) -> None:
        """Let them go on."""
        self._file.unlink(missing_ok=True)

    def join(self) -> None:
        """Let them go on, and wait until the last signal has been sent."""
        self.go_on()
        while self._threads:
            self._threads.pop().join(60)
