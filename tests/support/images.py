"""The agent's image and those that the compose files name, on a test's engine."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from support.host import Host
from support.require import require
from support.servers import program

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / ".cache/wheels"
DOCKERFILE = ROOT / "Dockerfile"
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-build.lock")
AGENT = "registrator:latest"
# Programs that Debian lacks. If one is on the path, its part of an example is tested, too.
OPTIONAL = {"coredns/coredns:1.15.0", "hashicorp/consul-template:0.41.1"}


def make_images(host: Host) -> set[str]:
    """Make all images. Returns their names. Skips the test where a needed program is missing."""
    program("docker", package="docker.io")
    command = [sys.executable, str(ROOT / "scripts/base_images.py")]
    environ = {**host.environment(), "DOCKER_HOST": host.host}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    made = set(done.stdout.split())
    assert done.returncode in (0, 3), done.stderr
    lacking = [line for line in done.stderr.splitlines() if not any(n in line for n in OPTIONAL)]
    require("base images", not lacking, "; ".join(lacking))
    build(host)
    return made | {AGENT}


def build(host: Host) -> None:
    """The agent's image as users make it, but from packages downloaded beforehand.

    A container has no network here.
    """
    download_packages()
    host.run("make", "image", deadline=300)


def download_packages() -> None:
    """Fetch what the lock files name for the image, and is not there yet."""
    wanted = _pins()
    hashes = "".join(lock.read_text() for lock in LOCKS)
    have = [file for file in WHEELS.glob("*") if _sha256(file) in hashes]
    if len(have) < len(wanted):
        python = re.search(r"^ARG PYTHON=python:([\d.]+)-slim$", DOCKERFILE.read_text(), re.M)
        assert python
        words = [word for lock in LOCKS for word in ("-r", str(lock))]
        _download(WHEELS, python[1], "--require-hashes", *words)


def packages_for(python: Path) -> Path:
    """A folder with the locked versions for an interpreter of the machine, fetched once.

    The lock files have the hashes for the image's Python only.
    """
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    shown = subprocess.run([python, "-Ic", show], check=True, capture_output=True, text=True)
    version = shown.stdout.strip()
    digest = hashlib.sha256("\n".join(_pins()).encode()).hexdigest()[:8]
    folder = WHEELS.with_name(f"wheels-{version}-{digest}")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=WHEELS.parent) as made:
            _download(Path(made, "wheels"), version, *_pins())
            # Another process may have been faster.
            with contextlib.suppress(OSError):
                Path(made, "wheels").rename(folder)
    return folder


def _pins() -> list[str]:
    return re.findall(r"^(\S+==\S+)", "".join(lock.read_text() for lock in LOCKS), re.MULTILINE)


def _download(folder: Path, python: str, *words: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--python-version", python, "-d", str(folder), *words]
    subprocess.run(command, check=True, timeout=300)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
