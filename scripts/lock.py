#!/usr/bin/env python3
"""Write requirements.lock and requirements-build.lock: every package of the image, by hash.

The image exists for two machine kinds, x86_64 and aarch64, with the Python that the Dockerfile
names. The lock files hold the hashes of the wheels for both. Run the script on x86_64 or aarch64
with that Python. pip downloads the files from its configured index. The files for this machine stay
in .cache/wheels, so that `make image` needs no network.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".cache/wheels"
MACHINES = ("x86_64", "aarch64")
# The image has a newer C library than all of these ask for.
PLATFORMS = ("manylinux2014", "manylinux_2_24", "manylinux_2_26", "manylinux_2_28")


def main() -> None:
    named = re.search(r"^ARG PYTHON=python:([\d.]+)-slim$", (ROOT / "Dockerfile").read_text(), re.M)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if named is None or named[1] != version:
        sys.exit(f"lock: this is Python {version}. Run it with the Python of the Dockerfile.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for folder in WHEELS.parent.glob("wheels*"):
        shutil.rmtree(folder)
    lock("requirements-build.lock", project["build-system"]["requires"])
    lock("requirements.lock", project["project"]["dependencies"])


def lock(name: str, requirements: list[str]) -> None:
    """Resolve and download, and write the name, version and hashes of each package."""
    folder = WHEELS.parent / "lock"
    shutil.rmtree(folder, ignore_errors=True)
    download(folder, *requirements)
    native = sorted(folder.iterdir())
    WHEELS.mkdir(parents=True, exist_ok=True)
    for file in native:
        shutil.copy(file, WHEELS)
    for file in native:
        if file.suffix == ".whl" and not file.stem.endswith("-any"):
            for machine in MACHINES:
                platforms = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
                download(folder, pin(file), "--no-deps", "--only-binary=:all:", *platforms)
    hashes = defaultdict(set)
    for file in folder.iterdir():
        hashes[pin(file)].add(hashlib.sha256(file.read_bytes()).hexdigest())
    lines = ["# Written by scripts/lock.py; do not edit."]
    for pinned in sorted(hashes):
        lines.append(
            " \\\n    ".join([pinned, *(f"--hash=sha256:{h}" for h in sorted(hashes[pinned]))])
        )
    (ROOT / name).write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder)


def download(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    subprocess.run([*command, "-d", str(folder), *words], check=True, stderr=subprocess.DEVNULL)


def pin(file: Path) -> str:
    """``name==version`` of a wheel or a source archive."""
    if file.suffix == ".whl":
        name, version = file.name.split("-")[:2]
    else:
        name, _, version = file.name.removesuffix(".tar.gz").rpartition("-")
    return f"{name.lower().replace('_', '-')}=={version}"


if __name__ == "__main__":
    main()
