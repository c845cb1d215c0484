"""A secret in a URI goes from the list of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.wait import until

URIS = ("consul://s3cret@127.0.0.1:9", "zookeeper://kim:s3%40cret@127.0.0.1:9/p?acl=private")
SHOWN = ("consul://***@127.0.0.1:9", "zookeeper://***@127.0.0.1:9/p?acl=private")


def test_secrets_are_hidden_from_the_list_of_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "registrator", "-ip", "127.10.0.1", *URIS]
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=env) as agent,
    ):
        try:
            listed = Path(f"/proc/{agent.pid}/cmdline")

            def shown() -> bool:
                words = listed.read_text().rstrip("\0").split("\0")
                return words[3:] == ["-ip", "127.10.0.1", *SHOWN]

            until(shown, listed.read_text)
            assert agent.poll() is None
        finally:
            agent.kill()
