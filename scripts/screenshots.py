"""Makes docs/images/: the page with a few containers, in light and dark colours.

Run it with the Python of .venv after a change of the page, and look at the images. It needs
Debian's chromium. The containers exist on a board only.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.boards import fill, put
from support.browser import browsing
from support.fakes import container
from support.listener import Serving, serving

from registrator.model import Container, Port, Problem, Reason
from registrator.status.report import RegistryReport

FOLDER = Path(__file__).resolve().parents[1] / "docs/images"
SIZE = {"width": 1200, "height": 830}
CONFLICT = {"web01:cache:6379": Problem(Reason.OTHERS_ENTRY, "another owner holds it")}


def running(name: str, image: str, hours: float, *ports: Port, **env: str) -> Container:
    """A container that started so many hours ago."""
    return container(
        name, id=hashlib.sha256(name.encode()).hexdigest(), image=image, ports=ports, env=env,
        started_at=int((time.time() - hours * 3600) * 1e9),
    )  # fmt: skip


def published(private: int, host_port: int) -> Port:
    """A port that everybody reaches at the host."""
    return Port(private, "tcp", "0.0.0.0", host_port)


CONTAINERS = (
    running("cache", "redis:7", 3, published(6379, 32774), SERVICE_TAGS="v7"),
    running("api-1", "acme/api:2.4.1", 1.5, published(80, 32770), published(443, 32771),
            SERVICE_80_NAME="api", SERVICE_443_NAME="api-tls", SERVICE_TAGS="v2"),
    running("db", "postgres:16", 70, Port(5432, "tcp"), SERVICE_TAGS="primary"),
    running("web-1", "nginx:1.27", 0.2, published(80, 32780), SERVICE_TAGS="public,v3"),
)  # fmt: skip


def prepare(served: Serving) -> None:
    """Two registries, and the containers. One of them has a conflict."""
    served.board.registries.append(RegistryReport("etcd://192.0.2.3:2379/services"))
    for report, server in zip(served.board.registries, ("h:8500", "192.0.2.3:2379"), strict=True):
        report.listed()
        report.serves(server)
    fill(served.board)
    put(served.board, *CONTAINERS, problems=CONFLICT)


def main() -> None:
    """Write both images."""
    with serving() as served, tempfile.TemporaryDirectory() as folder:
        prepare(served)
        url = f"http://{served.host}:{served.port}/"
        with browsing(Path(folder)) as open_tab:
            for colours in ("light", "dark"):
                tab = open_tab(url, **SIZE, dark=colours == "dark")
                tab.until(f"document.querySelectorAll('tbody').length === {len(CONTAINERS)}")
                file = FOLDER / f"page-{colours}.png"
                tab.screenshot(file)
                print(f"{file}: {file.stat().st_size} bytes")
                tab.close()


if __name__ == "__main__":
    main()
