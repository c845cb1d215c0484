"""Real servers and agents as fixtures. A part that is missing skips what needs it."""

from __future__ import annotations

import compileall
import gc
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import support.require
from hypothesis import HealthCheck, settings
from support.agent import Agent
from support.consul import clear
from support.engine import Dockerd
from support.host import Host
from support.images import make_images
from support.left_open import LeftOpen
from support.servers import Consul, Etcd, Server, ZooKeeper

ROOT = Path(__file__).resolve().parents[1]
RunAgent = Callable[..., Agent]

# A busy machine may take long for any example.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="skip what needs a server or root")


def pytest_configure(config: pytest.Config) -> None:
    """Choose what runs, and make the files that running the code leaves in this tree.

    Images are built in the tree while other tests run from it, and Docker's builder stops at a
    folder that appears while it looks through the tree.
    """
    support.require.no_parts = config.getoption("--unit")
    (ROOT / ".hypothesis").mkdir(exist_ok=True)
    for package in ("registrator", "backends"):
        compileall.compile_dir(ROOT / package, quiet=1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show a failure in plain form where pytest cannot show it, instead of ending the whole run.

    Python 3.11 knows no line for some entries of a traceback, and pytest needs one. pluggy makes a
    warning of the `TypeError` that follows.
    """
    try:
        return (yield)
    except (TypeError, Warning):
        assert call.excinfo is not None
        assert call.when != "collect"
        plain = "".join(traceback.format_exception(call.excinfo.value))
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", plain, call.when)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all tests and libraries again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Fail a test that leaves a thread of a backend: it would disturb a later test."""
    before = LeftOpen()
    yield
    before.check()


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """An engine with the images `web`, which exposes port 80, and `two`, 80 and 443.

    Shared by the whole run: a test that starts containers takes `clean_engine`.
    """
    made = Dockerd(tmp_path_factory.mktemp("engine"))
    for _ in _running(made):
        made.api.import_image("web", expose=[80])
        made.api.import_image("two", expose=[80, 443])
        yield made


@pytest.fixture
def clean_engine(engine: Dockerd) -> Iterator[Dockerd]:
    """The shared engine. Afterwards it runs, and has neither containers nor networks."""
    yield engine
    if engine.running:
        engine.thaw()
    else:
        engine.start()
    engine.api.clear()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host in a network of its own, with the agent's image and those of the compose files."""
    made = Host(tmp_path_factory.mktemp("host"))
    for _ in _running(made):
        made.images = make_images(made)
        yield made


@pytest.fixture(scope="session")
def shared_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    made = Consul(tmp_path_factory.mktemp("consul"))
    for _ in _running(made):
        yield made


@pytest.fixture
def consul(shared_consul: Consul) -> Iterator[Consul]:
    """A server, shared by the whole run, as the next two are. It runs and is empty afterwards."""
    yield shared_consul
    if not shared_consul.running:
        shared_consul.start()
    clear(shared_consul)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    made = Etcd(tmp_path_factory.mktemp("etcd"))
    for _ in _running(made):
        yield made


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    made = ZooKeeper(tmp_path_factory.mktemp("zookeeper"))
    for _ in _running(made):
        yield made


@pytest.fixture
def agent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunAgent]:
    """Starts agents: ``agent(*words, environ={}, docker_host=engine.host, prefix=())``.

    Without `docker_host` they run on the shared engine. The `prefix` goes before the command. All
    are stopped after the test, and one that has logged a traceback fails it.
    """
    made: list[Agent] = []

    def run(
        *words: str,
        environ: Mapping[str, str] | None = None,
        docker_host: str = "",
        prefix: Sequence[str] = (),
    ) -> Agent:
        host = docker_host or request.getfixturevalue("engine").host
        name = f"agent{len(made)}"
        made.append(Agent(tmp_path / name, words, host, environ, name, prefix))
        made[-1].start()
        return made[-1]

    yield run
    for each in made:
        each.stop()
    for each in made:
        assert "Traceback" not in each.log, each.tail(40)
