"""The table: which versions there are, how each is made, and which suites concern it.

A new version is a row. A new kind of thing to make is a module in ``recipes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compatibility.recipe import CACHE, Recipe, Unavailable, make, run
from compatibility.recipes.debian import Debian, Podman
from compatibility.recipes.go import Go
from compatibility.recipes.maven import Maven
from compatibility.recipes.node import Node
from compatibility.recipes.python import Environment, Python, oldest
from compatibility.recipes.traefik import LEGO, TRAEFIK, Traefik
from compatibility.suites import Suite


@dataclass(frozen=True)
class Version:
    """A program of a version, as `name` tells: ``etcd-3.6.8``, or ``docker-28`` for any of 28.

    A name that ends without a number takes what is there.
    `shows` is a line for the shell that prints the version. Without `recipes` the machine's own
    program is meant.
    """

    name: str
    shows: str
    suites: tuple[Suite, ...]
    recipes: tuple[Recipe, ...] = ()


def obtain(version: Version) -> tuple[Mapping[str, str], str]:
    """Make a version. Returns the environment to use it and its full number.

    Raises `Unavailable`, also where another version was got than the one wanted.
    """
    environment = make(version.recipes, CACHE / version.name)
    shown = run(["sh", "-c", version.shows], CACHE, environment)
    found = re.search(r"\d+\.\d+[.\d]*", shown)
    if not found:
        raise Unavailable(f"{version.shows!r} prints no version")
    wanted = version.name.rpartition("-")[2]
    if wanted[0].isdigit() and not f"{found[0]}.".startswith(f"{wanted}."):
        raise Unavailable(f"what can be had is {found[0]}")
    return environment, found[0]


def _suites(kinds: str, *folders: str) -> tuple[Suite, ...]:
    """The suites of a registry. `kinds` selects its rows of the suites that all have in common."""
    return (
        Suite("contract", ("tests/contract", "-k", kinds)),
        Suite("backend", folders),
        Suite("common", ("tests/backends/common",)),
        Suite("faults", ("tests/faults", "-k", kinds)),
        Suite("parity", ("tests/parity",)),
        Suite("end-to-end", ("tests/test_end_to_end.py",)),
    )


def _reader(name: str, *arguments: str) -> Suite:
    """A reader of a registry follows the instances of a service. The log has the seconds."""
    return Suite("reader", ("-rP", f"tests/readers/with_{name}.py", *arguments))


def _example(name: str) -> Suite:
    """An example, with the part that Debian lacks."""
    return Suite("example", ("tests/project/test_examples.py", "-k", name))


ETCD = _suites("etcd or skydns2", "tests/backends/etcd")
COREDNS = (
    Suite("dns", ("tests/backends/etcd/with_coredns.py",)),
    _reader("coredns"),
    _example("etcd-coredns"),
)
CONSUL = (*_suites("consul", "tests/backends/consul"), _reader("consul_dns"))
ZOOKEEPER = _suites("zookeeper", "tests/backends/zookeeper")
DOCKER = (
    Suite("engine", ("tests/engine", "-k", "not podman")),
    Suite("parity", ("tests/parity",)),
    Suite("end-to-end", ("tests/test_end_to_end.py",)),
    Suite("convergence", ("tests/sync/test_convergence.py",)),
    Suite("image", ("tests/project/test_image.py",)),
)
COMPOSE = (
    Suite("examples", ("tests/project/test_examples.py",)),
    Suite("files", ("tests/project/test_packaging.py", "-k", "compose")),
)
PODMAN = (Suite("engine", ("tests/engine/test_podman.py",)),)
CORE = tuple(
    f"tests/{folder}"
    for folder in ("desired", "sync", "system", "status", "templates", "listener", "commands")
)
PYTHON = (
    Suite("core", CORE),
    Suite("contract", ("tests/contract",)),
    Suite("backends", ("tests/backends",)),
    Suite("engine", ("tests/engine",)),
    Suite("end-to-end", ("tests/test_end_to_end.py",)),
)


def _go(program: str, module: str, number: str) -> Recipe:
    """The program that is a Go module's main package."""
    return Go((f"{module}@v{number}",), {program: module})


def _etcd(number: str) -> Version:
    """Built from Go's modules."""
    server, client = "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3"
    modules = (f"{server}@v{number}", f"{client}@v{number}")
    recipe = Go(modules, {"etcd": server, "etcdctl": client})
    return Version(f"etcd-{number}", "etcd --version", ETCD, (recipe,))


def _debian_etcd(number: str, suite: str) -> Version:
    recipe = Debian(suite, ("etcd-server", "etcd-client"), ("etcd", "etcdctl"))
    return Version(f"etcd-{number}", "etcd --version", ETCD, (recipe,))


def _zookeeper(number: str, *recipes: Recipe) -> Version:
    classes = f"${{{JARS}:-/usr/share/java/*}}"
    shows = f'java -cp "{classes}" org.apache.zookeeper.version.VersionInfoMain'
    return Version(f"zookeeper-{number}", shows, ZOOKEEPER, recipes)


def _docker(number: str, recipe: Recipe, *recipes: Recipe, store: str = "containerd") -> Version:
    """An engine. `store` is the image store that it does not use by default."""
    files = ("tests/engine", "tests/engine/with_image_store.py", "tests/test_end_to_end.py")
    other = Suite(f"{store}-store", (*files, "-k", "not podman"), {IMAGE_STORE: store})
    suites = (*DOCKER, other)
    return Version(f"docker-{number}", "dockerd --version", suites, (recipe, *recipes))


def _engine(suite: str, *more: str, packages: tuple[str, ...] = ()) -> Recipe:
    """The programs of Debian's engine, without dockerd unless it is among `more`."""
    programs = ("docker", "docker-proxy", "containerd", "containerd-shim-runc-v2", "runc", *more)
    return Debian(suite, ("docker.io", "docker-cli", *packages), programs)


def _compose(number: str, suite: str = "") -> Version:
    """Compose with the engine of the same release of Debian, the machine's own without `suite`."""
    # Parts of the examples that Debian lacks.
    recipes: tuple[Recipe, ...] = (
        _go("coredns", "github.com/coredns/coredns", "1.15.0"),
        _go("consul-template", "github.com/hashicorp/consul-template", "0.41.1"),
    )
    if suite:
        recipes += (_engine(suite, "dockerd", "docker-compose", packages=("docker-compose",)),)
    return Version(f"compose-{number}", "docker-compose version --short", COMPOSE, recipes)


def _podman(number: str, suite: str) -> Version:
    packages = ("podman", "runc", "netavark", "aardvark-dns", "nftables")
    programs = ("podman", "conmon", "runc", "netavark", "aardvark-dns", "nft")
    recipe = Podman(suite, packages, programs)
    return Version(f"podman-{number}", "podman --version", PODMAN, (recipe,))


def _python(number: str, suite: str) -> Version:
    program = f"python{number}"
    recipe = Python(suite, (f"{program}-venv",), (program,))
    return Version(f"python-{number}", f"{program} --version", PYTHON, (recipe,))


def _node(package: str, number: str) -> Version:
    """A reader in JavaScript with this package."""
    shows = f"node -p 'require(\"{package}/package.json\").version'"
    recipe = Node((f"{package}@{number}",))
    return Version(f"{package}-{number}", shows, (_reader("node"),), (recipe,))


# The class path that the tests run ZooKeeper with. If it is not set, they use Debian's.
JARS = "TEST_ZOOKEEPER_JARS"

# The image store that the tests' engines use. If it is not set, they use the default.
IMAGE_STORE = "TEST_IMAGE_STORE"

MOBY = "github.com/moby/moby/v2"
PROMETHEUS = "github.com/prometheus/prometheus"

VERSIONS = (
    Version("etcd-3.4", "etcd --version", ETCD),
    _debian_etcd("3.5.16", "trixie"),
    _debian_etcd("3.5.30", "forky"),
    _etcd("3.5.35"),
    _etcd("3.6.8"),
    _etcd("3.6.16"),
    _etcd("3.7.3"),
    Version(
        "coredns-1.15.0",
        "coredns -version",
        COREDNS,
        (_go("coredns", "github.com/coredns/coredns", "1.15.0"),),
    ),
    Version(
        "consul-1.8.7",
        "consul version",
        CONSUL,
        (Debian("bullseye", ("consul",), ("consul",)),),
    ),
    Version(
        "consul-1.14.11",
        "consul version",
        CONSUL,
        (_go("consul", "github.com/hashicorp/consul", "1.14.11"),),
    ),
    Version(
        "consul-template-0.41.1",
        "consul-template -version",
        (_reader("consul_template"), _example("nginx-upstream")),
        (_go("consul-template", "github.com/hashicorp/consul-template", "0.41.1"),),
    ),
    Version("haproxy-2.6", "haproxy -v", (_reader("haproxy"),)),
    _zookeeper("3.8"),
    _zookeeper(
        "3.9.5",
        Maven(
            (
                "org.apache.zookeeper:zookeeper:3.9.5",
                "io.dropwizard.metrics:metrics-core:4.1.12.1",
                "org.xerial.snappy:snappy-java:1.1.10.5",
                "org.slf4j:slf4j-simple:2.0.13",
            ),
            JARS,
        ),
    ),
    _node("node-zookeeper-client", "0.2.3"),
    _node("node-zookeeper-client", "1.1.3"),
    # Debian builds it without Consul.
    Version("prometheus-2.42", "prometheus --version", (_reader("prometheus", "-k", "file"),)),
    Version(
        "prometheus-3.16.0",
        "prometheus --version",
        (_reader("prometheus"),),
        (
            Go(
                (f"{PROMETHEUS}@v0.316.0",),
                {"prometheus": f"{PROMETHEUS}/cmd/prometheus"},
                # The module has a number of its own.
                {"github.com/prometheus/common/version.Version": "3.16.0"},
                ("remove_all_sd", "enable_consul_sd"),
            ),
        ),
    ),
    Version(
        "traefik-3.7.13",
        "traefik version",
        (_reader("traefik"),),
        (
            Traefik(
                (f"{TRAEFIK}@v3.7.13", f"{LEGO}@v5.4.1"),
                {"traefik": f"{TRAEFIK}/cmd/traefik"},
                {f"{TRAEFIK}/pkg/version.Version": "3.7.13"},
            ),
        ),
    ),
    Version("docker-20.10", "dockerd --version", DOCKER),
    _docker("26", _engine("trixie", "dockerd")),
    _docker("28", _engine("forky", "dockerd")),
    _docker(
        "29",
        Go(
            (f"{MOBY}@v2.0.0-beta.24",),
            {"dockerd": f"{MOBY}/cmd/dockerd"},
            # The module does not tell its own version.
            {f"{MOBY}/dockerversion.Version": "29.0.0+v2.0.0-beta.24"},
        ),
        _engine("forky"),
        store="classic",
    ),
    _compose("1.29"),
    _compose("2.26", "trixie"),
    _compose("2.40", "forky"),
    Version("podman-4.3", "podman --version", PODMAN),
    _podman("5.4", "trixie"),
    _podman("5.8", "forky"),
    Version("python-3.12", "python --version", PYTHON, (Environment("3.12"),)),
    _python("3.13", "trixie"),
    _python("3.14", "forky"),
    Version("libraries-oldest", "python --version", PYTHON, (Environment("3.11", oldest()),)),
    Version("libraries-newest", "python --version", PYTHON, (Environment("3.11"),)),
)
