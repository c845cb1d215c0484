"""The example of a registry of one's own, installed as its author would, with the real command."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.wait import until

EXAMPLE = Path(__file__).parents[2] / "examples/backend-plugin"


class AgentOf(Agent):
    """The command in another environment than the tests' own."""

    def __init__(self, python: Path, folder: Path, words: list[str], docker_host: str) -> None:
        super().__init__(folder, words, docker_host)
        self._command[0] = str(python)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees all that this one has, and the example besides."""
    folder = tmp_path_factory.mktemp("plugin")
    venv.create(folder / "venv", with_pip=False)
    made = folder / "venv/bin/python"
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    lines = [f"import site; site.addsitedir({own!r})" for own in site.getsitepackages()]
    (packages / "tests.pth").write_text("\n".join(lines))
    # A build leaves its traces beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(made), "install", *options, str(source)],
        check=True,
        timeout=120,
    )
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "services"
    folder.mkdir()
    return folder


@pytest.fixture
def plugged(python: Path, registry: Path, clean_engine: Dockerd, tmp_path: Path) -> Iterator[Agent]:
    words = ["-ip", "127.10.0.1", "-hostname", "h", f"folder://{registry}"]
    made = AgentOf(python, tmp_path / "agent", words, clean_engine.host)
    yield made
    made.stop()


def test_the_agent_keeps_the_registry_of_a_package_outside(
    plugged: Agent, registry: Path, clean_engine: Dockerd
) -> None:
    def held() -> dict[str, int]:
        return {
            path.name.partition("@")[2]: json.loads(path.read_text())["port"]
            for path in registry.glob("*.json")
        }

    others = registry / "other-engine@h%3Atheirs%3A80.json"
    others.write_text('{"name": "theirs", "address": "127.10.0.2", "port": 1}')
    plugged.start()
    clean_engine.api.run("one1", publish_all=True, env={"SERVICE_NAME": "web"})
    clean_engine.api.run("two2", publish_all=True)
    theirs = {"h%3Atheirs%3A80.json": 1}
    ports = {f"h%3A{n}%3A80.json": clean_engine.api.host_port(n) for n in ("one1", "two2")}
    until(lambda: held() == theirs | ports, plugged.tail, ignore=(FileNotFoundError,))
    clean_engine.api.stop("two2")
    left = {name: port for name, port in ports.items() if "one1" in name}
    until(lambda: held() == theirs | left, plugged.tail, ignore=(FileNotFoundError,))

    # What changes while no agent runs is put right by the next one.
    plugged.kill()
    clean_engine.api.remove("one1")
    clean_engine.api.start("two2")
    port = clean_engine.api.host_port("two2")
    plugged.start()
    two = {"h%3Atwo2%3A80.json": port}
    until(lambda: held() == theirs | two, plugged.tail, ignore=(FileNotFoundError,))
    assert "Traceback" not in plugged.log


def test_a_mistake_in_its_uri_is_reported(python: Path) -> None:
    done = subprocess.run(
        [python, "-m", "registrator", "folder://host/path", "nothing://x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "write folder:///path" in done.stderr
    assert "folder," in done.stderr, "it is not among the schemes that are known"
