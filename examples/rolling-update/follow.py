"""Writes the upstream of nginx whenever the services in the agent's file change."""

import json
import os
import signal
import sys
import time
from pathlib import Path

SERVICES = Path("/services/services.json")
RENDERED = Path("/rendered/web.conf")
CONFIG = """\
upstream web {
    %s
}
server {
    listen 8080;
    location / { proxy_pass http://web; }
}
"""


def targets() -> list[str]:
    """The addresses of all instances of `web`. The agent replaces the file as a whole."""
    groups = json.loads(SERVICES.read_text())
    return sorted(t for g in groups if g["labels"]["service"] == "web" for t in g["targets"])


def render(addresses: list[str]) -> None:
    """Replace the upstream, and make nginx read it. nginx refuses an upstream without a server."""
    lines = [f"server {address};" for address in addresses] or ["server 127.0.0.1:80 down;"]
    new = RENDERED.with_suffix(".new")
    new.write_text(CONFIG % "\n    ".join(lines))
    new.replace(RENDERED)
    os.kill(1, signal.SIGHUP)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
known = None
while True:
    if SERVICES.exists() and (found := targets()) != known:
        render(found)
        known = found
    time.sleep(0.2)
