#!/usr/bin/env python3
"""Make the images that the Dockerfile and the compose files name, on a machine without a network.

    scripts/base_images.py [NAME…]

The images are for tests. Each is a minimal root file system with programs of this machine's Debian
packages, or with those that other scripts put into .cache. It has the name of the public image, and
the part of its start script that the compose files need. The Docker CLI chooses the engine. The
script prints the name of each image that it makes. It exits with 3 if this machine lacks a program
for an image.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
MERGED = ("bin", "lib", "lib32", "lib64", "sbin")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"

CONSUL = """\
#!/bin/sh
if [ "$1" = agent ]; then
    shift
    set -- agent -data-dir=/consul/data -config-dir=/consul/config "$@"
fi
exec consul "$@"
"""

ZOOKEEPER = """\
#!/bin/sh
set -e
printf '%s\\n' "${ZOO_MY_ID:-1}" >/data/myid
{
    printf '%s\\n' dataDir=/data tickTime=2000 initLimit=5 syncLimit=2 admin.enableServer=false
    printf 'standaloneEnabled=true\\n4lw.commands.whitelist=srvr\\n'
    [ -n "$ZOO_SERVERS" ] || printf 'clientPort=2181\\n'
    for server in $ZOO_SERVERS; do printf '%s\\n' "$server"; done
} >/conf/zoo.cfg
exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \\
    -cp /conf:/usr/share/java/zookeeper.jar \\
    org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
"""

ZKCLI = """\
#!/bin/sh
exec java -Xmx64m -XX:TieredStopAtLevel=1 -cp /conf:/usr/share/java/zookeeper.jar \\
    org.apache.zookeeper.ZooKeeperMain "$@"
"""

LOG4J = """\
log4j.rootLogger=WARN, ERR
log4j.appender.ERR=org.apache.log4j.ConsoleAppender
log4j.appender.ERR.target=System.err
log4j.appender.ERR.layout=org.apache.log4j.SimpleLayout
"""


class MissingProgram(Exception):
    """This machine lacks a program, or a version of it."""


class Root:
    """A root file system as a tar archive: a busybox, and the files that callers add."""

    def __init__(self, out: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w")  # noqa: SIM115
        self._have: set[str] = set()
        for name in MERGED:
            self.link(name, f"usr/{name}")
        for name in ("consul/config", "consul/data", "data", "conf", "run", "var/log/nginx"):
            self.folder(name)
        self.folder("tmp", 0o1777)
        self.folder("var/lib/nginx", 0o777)
        self.text("etc/passwd", PASSWD)
        self.text("etc/group", GROUP)
        self.text("etc/nsswitch.conf", "hosts: files dns\n")
        busybox = program("busybox")
        self.program(busybox, "usr/bin/busybox")
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
        self._applets = set(applets.stdout.split()) - {"busybox"}

    def close(self) -> None:
        """Link each applet of busybox, unless a program has its name, and end the archive."""
        for name in sorted(self._applets):
            self.link(f"usr/bin/{name}", "busybox")
        self._tar.close()

    def folder(self, name: str, mode: int = 0o755) -> None:
        info = self._info(name, mode)
        info.type = tarfile.DIRTYPE
        self._add(info)

    def link(self, name: str, target: str) -> None:
        info = self._info(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._add(info)

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        self.data(name, text.encode(), mode)

    def data(self, name: str, data: bytes, mode: int = 0o644) -> None:
        info = self._info(name, mode)
        info.size = len(data)
        self._add(info, io.BytesIO(data))

    def file(self, path: Path, name: str = "") -> None:
        """Add a file or folder of this machine, at `name` or else at its own path.

        For a symbolic link, add its target, too.
        """
        name = name or _merged(path)
        if path.is_symlink():
            self.link(name, os.readlink(path))  # noqa: PTH115
            if path.exists() and not path.is_dir():
                self.file(path.resolve())
        elif path.is_dir():
            self.folder(name)
        elif path.is_file():
            info = self._info(name, path.stat().st_mode & 0o755)
            info.size = path.stat().st_size
            with path.open("rb") as content:
                self._add(info, content)

    def program(self, path: Path, name: str = "") -> None:
        """Add a program or shared object, with the libraries that it needs."""
        self.file(path, name)
        for library in libraries(path):
            self.file(library)

    def tree(self, top: Path, unwanted: str = "^$") -> None:
        """Add a folder without the names that match `unwanted`. Libraries bring their own."""
        for path in sorted(top.rglob("*")):
            if not re.search(unwanted, str(path)):
                self.file(path)
                if ".so" in path.name:
                    for library in libraries(path):
                        self.file(library)

    def extracted(self, top: Path, unwanted: str, *parts: str) -> None:
        """Add parts of the packages that were extracted to `top`, without the names that match."""
        for part in parts:
            for path in sorted([top / part, *(top / part).rglob("*")]):
                name = str(path.relative_to(top))
                if re.search(unwanted, f"/{name}"):
                    continue
                if path.is_symlink():
                    self.link(name, os.readlink(path))  # noqa: PTH115
                else:
                    self.file(path, name)

    @staticmethod
    def _info(name: str, mode: int = 0o777) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mode = mode
        return info

    def _add(self, info: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        if info.name not in self._have:
            self._have.add(info.name)
            self._tar.addfile(info, content)


def _merged(path: Path) -> str:
    """The path of a file inside /usr, because /bin, /lib and the like are links into /usr."""
    name = os.path.normpath(path).lstrip("/")
    return f"usr/{name}" if name.split("/")[0] in MERGED else name


@functools.cache
def libraries(path: Path) -> tuple[Path, ...]:
    """The shared libraries of a program, with the loader."""
    shown = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    return tuple(Path(found) for found in re.findall(r"(/\S+) \(0x", shown))


def program(name: str, *elsewhere: Path) -> Path:
    """The path of a program. Raises `MissingProgram`."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    found = [Path(path).resolve()] if path else [each for each in elsewhere if each.exists()]
    if not found:
        raise MissingProgram(f"no {name} on this machine")
    return found[0]


def python(root: Root) -> None:
    """The Python of the agent's image with its pip, and no compiler, as in the public image."""
    top = ROOT / ".cache/python3.14"
    wheel = next(top.glob("usr/share/python-wheels/pip-*.whl"), None)
    if wheel is None:
        raise MissingProgram("scripts/fetch-python has not run")
    root.extracted(
        top, r"/(test|gconv)(/|$)", "usr/lib", "usr/lib64", "usr/bin/python3.14", "etc/python3.14"
    )
    root.link("usr/bin/python3", "python3.14")
    root.link("usr/bin/python", "python3.14")
    root.file(Path("/etc/ssl/certs/ca-certificates.crt"))
    with zipfile.ZipFile(wheel) as pip:
        for name in pip.namelist():
            root.data(f"usr/lib/python3/dist-packages/{name}", pip.read(name))


def consul(root: Root) -> None:
    """The Consul that the tests use."""
    root.program(program("consul", ROOT / ".cache/consul/usr/bin/consul"), "usr/bin/consul")
    root.text("usr/bin/docker-entrypoint.sh", CONSUL, 0o755)


def etcd(root: Root) -> None:
    """etcd and its command-line client."""
    for name in ("etcd", "etcdctl"):
        root.program(program(name), f"usr/local/bin/{name}")


def nginx(root: Root) -> None:
    """nginx, with an empty configuration."""
    root.program(program("nginx"), "usr/sbin/nginx")
    root.text("etc/nginx/nginx.conf", "events {}\n")


def haproxy(root: Root) -> None:
    """HAProxy without a configuration."""
    root.program(program("haproxy"), "usr/local/sbin/haproxy")


def zookeeper(root: Root) -> None:
    """ZooKeeper and its shell, with the machine's Java."""
    java = program("java")
    home = java.parents[1]
    unwanted = r"/(jmods|include|legal|man|docs)(/|$)|src\.zip|ct\.sym|libawt_xawt|libsplash"
    root.tree(home, unwanted)
    root.program(java)
    for path in sorted((home / "conf").rglob("*")):
        root.file(path)
    root.link("usr/bin/java", str(java))
    jar = Path("/usr/share/java/zookeeper.jar")
    if not jar.exists():
        raise MissingProgram("zookeeper is not installed")
    for path in (jar, *manifest_jars(jar)):
        root.file(path)
    root.text("conf/log4j.properties", LOG4J)
    root.text("usr/bin/docker-entrypoint.sh", ZOOKEEPER, 0o755)
    root.text("usr/bin/zkCli.sh", ZKCLI, 0o755)


def manifest_jars(jar: Path) -> list[Path]:
    """The jars that a jar's manifest puts on the class path, directly or through other jars."""
    found: dict[Path, None] = {}
    waiting = [jar]
    while waiting:
        try:
            with zipfile.ZipFile(waiting.pop()) as archive:
                manifest = archive.read("META-INF/MANIFEST.MF").decode().replace("\r", "")
        except (OSError, KeyError):
            continue
        match = re.search(r"^Class-Path: (.*)$", manifest.replace("\n ", ""), re.MULTILINE)
        for word in match[1].split() if match else ():
            path = Path(os.path.normpath(jar.parent / word.removeprefix("file:")))
            if path not in found:
                found[path] = None
                waiting.append(path)
    return list(found)


def tool(name: str) -> Callable[[Root], None]:
    """A program that Debian lacks. Somebody must put it on the path."""

    def fill(root: Root) -> None:
        root.program(program(name), f"usr/bin/{name}")

    return fill


def nothing(_: Root) -> None:
    """Only busybox."""


def words(instruction: str, *given: str) -> str:
    return f"{instruction} {json.dumps(given)}"


# The name of each public image, the function that fills its root, and its settings.
IMAGES: dict[str, tuple[Callable[[Root], None], Sequence[str]]] = {
    "busybox:1.35": (nothing, [words("CMD", "sh")]),
    "consul:1.8": (
        consul,
        [
            words("ENTRYPOINT", "docker-entrypoint.sh"),
            words("CMD", "agent", "-dev", "-client", "0.0.0.0"),
            "EXPOSE 8300/tcp 8301/tcp 8301/udp 8302/tcp 8302/udp 8500/tcp 8600/tcp 8600/udp",
        ],
    ),
    "coredns/coredns:1.15.0": (tool("coredns"), [words("ENTRYPOINT", "coredns")]),
    "haproxy:2.6": (
        haproxy,
        [words("CMD", "haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg")],
    ),
    "hashicorp/consul-template:0.41.1": (
        tool("consul-template"),
        [words("ENTRYPOINT", "consul-template")],
    ),
    "nginx:1.22": (nginx, [words("CMD", "nginx", "-g", "daemon off;"), "EXPOSE 80/tcp"]),
    "python:3.14-slim": (python, [words("CMD", "python3")]),
    "quay.io/coreos/etcd:v3.4.23": (
        etcd,
        [words("CMD", "/usr/local/bin/etcd"), "EXPOSE 2379/tcp 2380/tcp"],
    ),
    "zookeeper:3.8": (
        zookeeper,
        [words("ENTRYPOINT", "docker-entrypoint.sh"), "EXPOSE 2181/tcp 2888/tcp 3888/tcp"],
    ),
}


def make(name: str) -> None:
    """Import one image. Raises `MissingProgram` if this machine lacks a part of it."""
    fill, changes = IMAGES[name]
    options = [f"--change={each}" for each in (f"ENV PATH={SEARCH}", *changes)]
    with tempfile.TemporaryFile() as archive:
        root = Root(archive)
        fill(root)
        root.close()
        archive.seek(0)
        command = ["docker", "import", *options, "-", name]
        subprocess.run(command, stdin=archive, stdout=subprocess.DEVNULL, check=True)


SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    missing = False
    for name in sys.argv[1:] or IMAGES:
        try:
            make(name)
            print(name)
        except MissingProgram as error:
            missing = True
            print(f"base_images: no {name}: {error}", file=sys.stderr)
    sys.exit(3 if missing else 0)


if __name__ == "__main__":
    main()
