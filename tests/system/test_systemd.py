"""The unit under a real systemd: started, killed, reloaded, stopped, and with mistakes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engine import Dockerd
from support.images import ROOT, packages_for
from support.require import require
from support.servers import Consul
from support.systemd import Systemd
from support.wait import until

from registrator.system.systemd import tell_ready

PYTHON = Path("/usr/bin/python3.11")
PIP = Path("/usr/share/python-wheels")
DEFAULTS = "/etc/default/registrator"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, engine: Dockerd) -> Iterator[Systemd]:
    """One where docs/deploy.md was followed, up to what starts the unit."""
    require("python3.11", PYTHON.exists(), "Debian's python3.11")
    pip = next(PIP.glob("pip-*.whl"), None)
    require("pip's wheel", pip, "Debian's python3-pip-whl")
    wheels = make_wheels(tmp_path_factory.mktemp("wheels"))
    made = Systemd(tmp_path_factory.mktemp("systemd"), engine.socket)
    try:
        made.start()
        shutil.copytree(wheels, made.path("/tmp/wheels"))
        made.run(str(PYTHON), "-m", "venv", "--without-pip", "/opt/registrator")
        words = ["install", "-q", "--no-index", "--no-deps", "--no-compile"]
        packages = [f"/tmp/wheels/{path.name}" for path in wheels.glob("*.whl")]
        python = ("env", f"PYTHONPATH={pip}", "/opt/registrator/bin/python", "-m", "pip")
        made.run(*python, *words, *packages, deadline=120)
        made.run("useradd", "--system", "registrator")
        unit = ROOT / "packaging/systemd/registrator.service"
        shutil.copy(unit, made.path("/etc/systemd/system/registrator.service"))
        made.run("systemctl", "daemon-reload")
        yield made
    finally:
        made.remove()


def make_wheels(folder: Path) -> Path:
    """This package and what it needs, as wheels. They are built from a copy, as a build writes."""
    packages = packages_for(PYTHON)
    for name in ("registrator", "backends"):
        shutil.copytree(ROOT / name, folder / "source" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    words = ["wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    given = [str(folder / "source"), *map(str, packages.glob("*.tar.gz"))]
    subprocess.run([*command, "-w", str(folder / "dist"), *given], check=True, timeout=120)
    for wheel in packages.glob("*.whl"):
        shutil.copy(wheel, folder / "dist")
    return folder / "dist"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    made = Consul(tmp_path_factory.mktemp("consul"))
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def service(machine: Systemd, registry: Consul, clean_engine: Dockerd) -> Iterator[Systemd]:
    """The service, enabled and started, beside one container that runs."""
    clean_engine.api.run("web1", publish_all=True)
    text = (ROOT / "packaging/systemd/registrator.default").read_text()
    text = text.replace("127.0.0.1:8500", registry.address)
    machine.path(DEFAULTS).write_text(f"{text}\nREGISTRATOR_IP=127.10.0.1\n")
    machine.run("systemctl", "enable", "--now", "registrator")
    yield machine
    machine.run("systemctl", "stop", "registrator")
    machine.run("systemctl", "reset-failed", "registrator")


def show(machine: Systemd, name: str) -> str:
    return machine.run("systemctl", "show", "--property", name, "--value", "registrator")


def services(registry: Consul) -> set[str]:
    return {each["Service"] for each in registry.api("agent/services").values()}


def test_enabled_it_runs_without_rights_and_registers(service: Systemd, registry: Consul) -> None:
    assert service.run("systemctl", "is-enabled", "registrator") == "enabled"
    until(
        lambda: services(registry) == {"web"},
        lambda: service.run("journalctl", "-u", "registrator"),
    )
    health = ("/opt/registrator/bin/python", "-m", "registrator.health")
    until(lambda: service.run(*health, check=False) == "well", "health")
    status = service.run("cat", f"/proc/{show(service, 'MainPID')}/status")
    rights = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(rights["Uid"].split()) == {service.run("id", "-u", "registrator")}
    assert (int(rights["CapEff"], 16), int(rights["CapBnd"], 16)) == (0, 0)
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")


def test_killed_it_is_started_again(
    service: Systemd, registry: Consul, clean_engine: Dockerd
) -> None:
    until(lambda: services(registry) == {"web"}, "the first service")
    first = show(service, "MainPID")
    service.run("kill", "-9", first)
    clean_engine.api.run("other", publish_all=True, env={"SERVICE_NAME": "other"})
    until(
        lambda: show(service, "ActiveState") == "active" and show(service, "MainPID") != first,
        "a new process",
    )
    # At once, which is when a process without a handler would die of it.
    service.run("systemctl", "reload", "registrator")
    until(lambda: services(registry) == {"web", "other"}, "what came meanwhile")
    assert (show(service, "NRestarts"), show(service, "ActiveState")) == ("1", "active")


def test_stopped_it_ends_well_and_leaves_the_entries(service: Systemd, registry: Consul) -> None:
    until(lambda: services(registry) == {"web"}, "the service")
    service.run("systemctl", "stop", "registrator")
    assert (show(service, "Result"), show(service, "ExecMainStatus")) == ("success", "0")
    assert services(registry) == {"web"}


def test_a_mistake_shows_at_the_start_and_ends_it(service: Systemd) -> None:
    with service.path(DEFAULTS).open("a") as file:
        file.write("REGISTRATOR_TTL=nonsense\n")
    with pytest.raises(AssertionError, match="failed because"):
        service.run("systemctl", "restart", "registrator")
    assert (show(service, "ActiveState"), show(service, "ExecMainStatus")) == ("failed", "2")
    log = service.run("journalctl", "--unit=registrator", "--lines=5", "--output=cat")
    assert "REGISTRATOR_TTL must be" in log


def test_a_file_of_services_outlives_it_and_others_may_read_it(service: Systemd) -> None:
    path = "/run/registrator/services.json"
    with service.path(DEFAULTS).open("a") as file:
        file.write(f"REGISTRIES=file://{path}\n")
    service.run("systemctl", "restart", "registrator")
    until(lambda: service.path(path).exists(), "the file")
    service.run("systemctl", "stop", "registrator")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    (group,) = json.loads(service.run(*as_nobody, "cat", path))
    assert group["labels"]["service"] == "web"


def test_readiness_goes_to_an_abstract_socket_too() -> None:
    name = f"registrator-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.settimeout(60)
        tell_ready({"NOTIFY_SOCKET": f"@{name}"})
        assert systemd.recv(100) == b"READY=1"


def test_a_socket_that_is_not_there_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell_ready({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "No such file" in caplog.text
