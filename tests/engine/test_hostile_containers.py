"""Images and labels that would harm others: on a real engine, with an agent that keeps a file."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agent import Agent
from support.docker_api import busybox_layer
from support.engine import Dockerd
from support.wait import until

from registrator.engine.client import DockerEngine

RunAgent = Callable[..., Agent]
WORDS = ("-ip", "127.10.0.1", "-hostname", "h", "-resync", "0")


def image_with(name: str, layer: bytes, **config: object) -> bytes:
    """An image for ``docker load``, of one layer and with this configuration."""
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    made = {
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [{"created": "2024-01-01T00:00:00Z"}],
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        files = {
            "config.json": json.dumps(made).encode(),
            "manifest.json": json.dumps(manifest).encode(),
            "layer.tar": layer,
        }
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def registered(file: Path) -> set[str]:
    return {group["labels"]["id"] for group in json.loads(file.read_text())}


def expect(file: Path, agent: Agent, *names: str) -> None:
    until(
        lambda: registered(file) == set(names),
        lambda: f"{names}; {agent.tail()}",
        ignore=(OSError, ValueError),
    )


def test_an_image_with_a_port_that_is_none(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    api, file = clean_engine.api, tmp_path / "services.json"
    command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]
    loaded = image_with(
        "evil", busybox_layer(), Cmd=command, ExposedPorts={"²/tcp": {}, "81/tcp": {}}
    )
    answer = api.request("POST", "/images/load", tar=loaded)
    # The classic store of engine 29 takes no such image, so none of its containers can come.
    if "error" in answer:
        assert answer["error"].startswith("invalid port")
        return
    api.run("calm", publish_all=True)
    run = agent(*WORDS, f"file://{file}")
    expect(file, run, "h:calm:80")
    api.run("evil", "evil", network="host")
    expect(file, run, "h:calm:80", "h:evil:81")
    # Engine 29 drops such a port itself.
    if "²/tcp" in api.inspect("evil")["Config"]["ExposedPorts"]:
        run.wait_log(r"container evil .*not registered: its port .* cannot be read")
    api.remove("calm")
    expect(file, run, "h:evil:81")


def test_a_label_over_the_exit_code_mutes_no_event(
    clean_engine: Dockerd, agent: RunAgent, tmp_path: Path
) -> None:
    api, file = clean_engine.api, tmp_path / "services.json"
    run = agent(*WORDS, f"file://{file}")
    run.wait_log("Docker engine .* at")
    api.run("evil", publish_all=True, labels={"exitCode": "--5", "container": "x", "name": "\n"})
    for number in range(3):
        api.run(f"calm{number}", publish_all=True)
    expect(file, run, "h:evil:80", *(f"h:calm{number}:80" for number in range(3)))
    api.kill("evil")
    expect(file, run, *(f"h:calm{number}:80" for number in range(3)))
    assert "the event stream" not in run.log


@pytest.mark.parametrize("length", [64, 12])
def test_a_network_that_is_given_by_its_id_is_the_main_one(
    clean_engine: Dockerd, length: int
) -> None:
    api = clean_engine.api
    main = api.network_create("main")
    api.network_create("another")
    made = api.run("web1", network=main[:length])
    api.network_connect("another", made)
    client = DockerEngine({"DOCKER_HOST": clean_engine.host})
    found = client.inspect(made)
    client.close()
    assert found is not None
    assert list(found.networks) == ["main", "another"]
