"""The compose files on a real engine: each example's README, command by command.

So every README says how its service is scaled to 3, back to 1, and stopped, and what the registry
holds after each step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.rolling import update
from support.host import Host
from support.servers import program
from support.wait import until
from support.walkthrough import blocks, walk

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/docker-compose.yml"))

# Parts whose programs Debian lacks: their image, and what tells their blocks of a README.
PARTS = {
    "nginx-upstream": ("hashicorp/consul-template:0.41.1", r"consul-template|:8080"),
    "etcd-coredns": ("coredns/coredns:1.15.0", r"coredns|\bdig\b"),
}


def down(host: Host, folder: Path) -> None:
    host.run("docker-compose", "down", "-v", "-t", "0", "--remove-orphans", folder=folder)


@pytest.fixture
def compose(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The host. Afterwards nothing runs on it."""
    program("docker-compose", package="docker-compose")
    program("dig", package="bind9-dnsutils")
    monkeypatch.setenv("HOST_IP", host.ip)
    yield host
    host.api.clear()
    host.run("docker", "volume", "prune", "-f")


def without(host: Host, example: str) -> str:
    """A pattern of the blocks that cannot run here."""
    image, pattern = PARTS.get(example, ("", "^$"))
    return "^$" if image in host.images else pattern


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_what_a_readme_says_happens(folder: Path, compose: Host) -> None:
    assert walk(compose, folder / "README.md", without(compose, folder.name)) > 8


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_a_readme_scales_and_stops(folder: Path) -> None:
    lines = [command for block in blocks(folder / "README.md") for command in block]
    acts = [
        match[0]
        for command in lines
        if (match := re.search(r"--scale \w+=[13]|\bstop \w+|\bdown\b", command.line))
    ]
    order = [re.sub(r"--scale \w+=|\bstop \w+", lambda m: m[0].split()[0], act) for act in acts]
    assert order[-4:] == ["--scale3", "--scale1", "stop", "down"], acts


@pytest.mark.parametrize("example", PARTS)
def test_the_part_that_debian_lacks(example: str, compose: Host) -> None:
    if without(compose, example) != "^$":
        pytest.skip(f"{PARTS[example][0]} cannot be made here; the rest of {example} is tested")
    assert any(re.search(PARTS[example][1], c.line) for b in readme_of(example) for c in b)


def readme_of(example: str) -> list[list[Any]]:
    return list(blocks(ROOT / "examples" / example / "README.md"))


def test_the_compose_file_of_the_repository(compose: Host) -> None:
    compose.run("docker-compose", "up", "-d", "--scale", "web=3", folder=ROOT)
    for number in (3, 1):
        compose.run("docker-compose", "up", "-d", "--scale", f"web={number}", folder=ROOT)
        until(lambda n=number: len(passing(compose, "web")) == n, "the instances")  # type: ignore[misc]
    web = passing(compose, "web")[0]["Service"]
    assert (web["Tags"], web["Address"]) == (["demo"], compose.ip)
    assert set(services(compose)) == {"consul", "web"}
    compose.run("docker-compose", "stop", "web", folder=ROOT)
    until(lambda: set(services(compose)) == {"consul"}, "no service")
    down(compose, ROOT)


def test_nginx_reaches_every_instance(compose: Host) -> None:
    """The template's two forms are filled in here as consul-template does, which Debian lacks."""
    folder = ROOT / "examples/nginx-upstream"
    compose.run("docker-compose", "up", "-d", "--scale", "web=3", "registrator", "consul", "web",
                "nginx", folder=folder)  # fmt: skip
    until(lambda: len(passing(compose, "web")) == 3, "three instances")
    try:
        for number in (3, 1, 0):
            serve(compose, folder, passing(compose, "web")[:number])
            until(lambda n=number: len(answers(compose)) == n, lambda: str(answers(compose)))  # type: ignore[misc]
    finally:
        down(compose, folder)


def test_requests_fail_in_a_rolling_update_without_the_options(compose: Host) -> None:
    """The example's page shows that none fails with them."""
    count = update(compose, updates=1, options="", instances=1)
    assert count.requests > count.failed > 0


def serve(host: Host, folder: Path, found: list[dict[str, Any]]) -> None:
    """Render the upstream, and have nginx read it."""
    template = (folder / "upstream.ctmpl").read_text()
    match = re.search(r'\{\{- range service "web" \}\}(.*)\{\{- else \}\}(.*)\{\{- end \}\}',
                      template, re.DOTALL)  # fmt: skip
    assert match
    rows = [
        match[1]
        .replace("{{ .Address }}", entry["Service"]["Address"])
        .replace("{{ .Port }}", str(entry["Service"]["Port"]))
        .rstrip()
        for entry in found
    ]
    text = template.replace(match[0], "".join(rows) or match[2].rstrip())
    script = 'printf %s "$0" >/etc/nginx/rendered/web.conf && kill -HUP 1'
    host.run("docker-compose", "exec", "-T", "nginx", "sh", "-c", script, text, folder=folder)


def answers(host: Host) -> set[str]:
    """The names of the instances that nginx passes requests to."""
    line = "for i in 1 2 3 4 5 6; do curl -sf http://127.0.0.1:8080/ && echo; done"
    return set(host.run("sh", "-c", line, check=False).split())


def services(host: Host) -> dict[str, list[str]]:
    return dict(ask(host, "catalog/services"))


def passing(host: Host, name: str) -> list[dict[str, Any]]:
    return list(ask(host, f"health/service/{name}?passing") or ())


def ask(host: Host, path: str) -> Any:
    """The answer of the Consul on the host's own network. None if it does not answer."""
    text = host.run("curl", "-s", f"http://127.0.0.1:8500/v1/{path}", check=False)
    return json.loads(text) if text.startswith(("[", "{")) else None
