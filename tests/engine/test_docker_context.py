"""Contexts as the Docker CLI makes them, and addresses as it reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.certificates import Authority
from support.engine import Dockerd
from support.servers import program

from registrator.engine.address import WrongVariables, client_arguments
from registrator.engine.client import DockerEngine


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def docker(config: Path, *words: str, check: bool = True, **environ: str) -> str:
    """The output of the CLI, with no variable of the developer's own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    done = subprocess.run(
        [program("docker", package="docker.io"), *words],
        env={**own, "DOCKER_CONFIG": str(config), **environ},
        check=check,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_an_engine_is_found_by_a_context(config: Path, clean_engine: Dockerd) -> None:
    docker(config, "context", "create", "here", "--docker", f"host={clean_engine.host}")
    assert not (config / "config.json").exists()
    client = DockerEngine({"DOCKER_CONFIG": str(config), "DOCKER_CONTEXT": "here"})
    assert client.identify().id == clean_engine.api.request("GET", "/info")["ID"]
    client.close()


def test_without_variables_the_home_folder_has_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(config.parent))
    config = config.parent / ".docker"
    docker(config, "context", "create", "far", "--docker", "host=tcp://192.0.2.10:2375")
    found = client_arguments({"DOCKER_CONTEXT": "far"})
    assert (found["base_url"], found["tls"]) == ("tcp://192.0.2.10:2375", False)


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(WrongVariables, match="needs HOME or DOCKER_CONFIG"):
        client_arguments({"DOCKER_CONTEXT": "far"})


@pytest.mark.parametrize("skip", [False, True])
def test_a_contexts_certificates(config: Path, tmp_path: Path, skip: bool) -> None:
    authority = Authority(tmp_path / "tls")
    cert, key = authority.issue("client")
    where = f"host=tcp://192.0.2.10:2376,ca={authority.ca},cert={cert},key={key}"
    where += f",skip-tls-verify={str(skip).lower()}"
    docker(config, "context", "create", "tls", "--docker", where)
    tls = client_arguments({"DOCKER_CONFIG": str(config), "DOCKER_CONTEXT": "tls"})["tls"]
    assert [Path(path).read_text() for path in tls.cert] == [cert.read_text(), key.read_text()]
    assert bool(tls.verify) is not skip
    assert (tls.ca_cert is None) is skip


def test_a_context_that_is_none(config: Path) -> None:
    environ = {"DOCKER_CONFIG": str(config), "DOCKER_CONTEXT": "here"}
    with pytest.raises(WrongVariables, match="no context has this name"):
        client_arguments(environ)
    docker(config, "context", "create", "here", "--docker", "host=tcp://192.0.2.10:2375")
    (meta,) = config.glob("contexts/meta/*/meta.json")
    for text in ("no JSON", "[]", "{}", '{"Endpoints": {"docker": {}}}'):
        meta.write_text(text)
        with pytest.raises(WrongVariables, match="cannot be read"):
            client_arguments(environ)


@pytest.mark.parametrize("given", ["127.9.9.9", "127.9.9.9/", "127.9.9.9:2399"])
@pytest.mark.parametrize("tls", [False, True])
def test_an_address_without_a_port(given: str, tls: bool, config: Path, tmp_path: Path) -> None:
    """The CLI's own answer names the port that it takes."""
    authority = Authority(tmp_path / "tls")
    for name, file in zip(("cert", "key"), authority.issue("client"), strict=True):
        file.rename(tmp_path / "tls" / f"{name}.pem")
    environ = {"DOCKER_HOST": f"tcp://{given}"}
    if tls:
        environ |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(authority.ca.parent)}
    address = client_arguments(environ)["base_url"]
    assert f" at {address}" in docker(config, "ps", check=False, **environ)
    assert address in ("tcp://127.9.9.9:2375", "tcp://127.9.9.9:2399")


def test_an_ipv6_address_without_a_port() -> None:
    assert client_arguments({"DOCKER_HOST": "tcp://[::1]"})["base_url"] == "tcp://[::1]:2375"
