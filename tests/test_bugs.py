"""A bug in any thread ends the whole agent, in time. An expected failure never does."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.proxy import TCPProxy
from support.servers import Consul
from support.wait import until

IP = "127.10.0.1"
PATIENT = "?timeout=60"

# The command with faults put in: functions raise what a file says, unless it is empty.
FAULTY = """
import builtins, importlib, pathlib, sys, threading
from registrator import agent, backend, model
from registrator.desired import inventory
from registrator.engine import address
from registrator.sync import reconciler
from registrator.system import hostaddr, retry

inventory.HEARTBEAT = hostaddr.WATCH_PERIOD = 0.3
hostaddr.SEARCH_PERIOD = retry.MAX_ENGINE_WAIT = 0.1
KNOWN = vars(builtins) | vars(backend) | vars(model) | vars(address)
fault, thread, *places = sys.argv[1].split(",")
del sys.argv[1]

def faulty(name, real):
    def call(*args, **kwargs):
        kind = pathlib.Path(fault).read_text()
        if kind and threading.current_thread().name.startswith(thread):
            raise KNOWN[kind]("put in by the test")
        return real(*args, **kwargs)
    return call

for place in places:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, faulty(name, getattr(owner, name)))

from registrator.cli import main
main()
"""


class FaultyAgent(Agent):
    """An agent in which the functions at `places` raise, on threads named `thread…`."""

    def __init__(
        self, folder: Path, engine: str, thread: str, places: tuple[str, ...], *words: str
    ) -> None:
        super().__init__(folder, (), engine)
        self._fault = folder / "fault"
        self.mend()
        self.file = folder / "services.json"
        faults = ",".join([str(self._fault), thread, *places])
        common = ("-hostname", "h", f"file://{self.file}")
        self._command = [sys.executable, "-c", FAULTY, faults, *common, *words]

    def fault(self, kind: str) -> None:
        """From now on the functions raise this."""
        scratch = self._fault.with_suffix(".new")
        scratch.write_text(kind)
        scratch.rename(self._fault)

    def mend(self) -> None:
        """They work again."""
        self.fault("")

    def expect(self, *names: str) -> None:
        """Wait until these containers' services are in the file: ``name``, or ``name:port``."""
        wanted = {f"h:{name}" if ":" in name else f"h:{name}:80" for name in names}
        until(
            lambda: {g["labels"]["id"] for g in json.loads(self.file.read_text())} == wanted,
            lambda: f"{wanted}; {self.tail(40)}",
            ignore=(OSError, ValueError),
        )


@pytest.fixture
def faulty(clean_engine: Dockerd, tmp_path: Path) -> Iterator[Callable[..., FaultyAgent]]:
    """Starts one. Its engine is the shared one where no other is given."""
    with ExitStack() as ends:

        def start(
            thread: str, *places: str, words: tuple[str, ...] = (), host: str = ""
        ) -> FaultyAgent:
            made = FaultyAgent(tmp_path, host or clean_engine.host, thread, places, *words)
            ends.callback(made.kill)
            made.start()
            return made

        yield start


def ended(agent: FaultyAgent) -> None:
    """Hold an agent to an end by itself, with a traceback and exit code 1."""
    assert agent.exited() == 1
    assert agent.log.count("ERROR a bug ended a thread, and the agent with it") == 1
    assert agent.log.count("Traceback (most recent call last)") == 1, agent.tail(60)
    assert "ZeroDivisionError: put in by the test" in agent.log


@pytest.mark.parametrize(
    ("thread", "place"),
    [
        ("events", "registrator.desired.inventory:Inventory.mark"),
        ("inventory", "registrator.desired.inventory:Inventory.step"),
        ("address", "registrator.system.hostaddr:host_addresses"),
        ("file:", "registrator.sync.reconciler:diff"),
        ("MainThread", "registrator.health:Health.note"),
        ("resolve", "socket:getaddrinfo"),
    ],
)
def test_a_bug_in_a_thread_ends_the_agent(
    thread: str, place: str, clean_engine: Dockerd, faulty: Callable[..., FaultyAgent]
) -> None:
    # With -ip the agent does not resolve the host's own name.
    own = ("-ip", IP) if thread == "resolve" else ()
    agent = faulty(thread, place, words=("-resync", "0.3", *own, "consul://localhost:1"))
    clean_engine.api.run("web1", publish_all=True, env={"SERVICE_IP": IP})
    agent.expect("web1")
    agent.fault("ZeroDivisionError")
    clean_engine.api.run("web2", publish_all=True, env={"SERVICE_IP": IP})
    ended(agent)
    assert agent.file.exists(), "the entries stay"


def test_no_other_thread_holds_up_the_end(
    clean_engine: Dockerd, consul: Consul, faulty: Callable[..., FaultyAgent]
) -> None:
    """Engine and registries are frozen, all in the midst of calls with a minute's patience."""
    engine, registry = TCPProxy(f"unix://{clean_engine.socket}"), TCPProxy(consul.address)
    mute = TCPProxy(consul.address)
    mute.freeze()
    uris = [f"consul://{registry.address}", f"consulkv://{registry.address}/bugs"]
    uris += [f"{scheme}://{mute.address}" for scheme in ("consul", "etcd", "zookeeper")]
    try:
        agent = faulty(
            "file:",
            "registrator.sync.reconciler:diff",
            words=("-ip", IP, *(uri + PATIENT for uri in uris)),
            host=f"tcp://{engine.address}",
        )
        clean_engine.api.run("web0", publish_all=True)
        until(lambda: "h:web0:80" in consul.api("agent/services"), lambda: agent.tail(40))
        registry.freeze()
        clean_engine.api.run("more", "two", publish_all=True)
        agent.expect("web0", "more", "more:443")
        engine.freeze()
        agent.fault("ZeroDivisionError")
        agent.signal(signal.SIGHUP)
        ended(agent)
        told = agent.log.partition("a bug ended a thread")[2]
        assert "no answer" not in told, "it waits for none of these calls"
    finally:
        for proxy in (engine, registry, mute):
            proxy.close()


BACKEND = [f"registrator.backends.file:FileBackend.{m}" for m in ("list", "apply", "keepalive")]
ENGINE = [
    f"registrator.engine.client:DockerEngine.{method}"
    for method in ("running", "inspect", "ping", "events", "identify")
]


@pytest.mark.parametrize(
    ("places", "kinds"),
    [
        (BACKEND, ("BackendError", "Unavailable", "SessionLost", "Rejected", "ConfigError")),
        (ENGINE, ("EngineUnavailable", "EngineSlow", "Unreadable", "WrongVariables")),
    ],
    ids=["backend", "engine"],
)
def test_an_expected_failure_never_ends_it(
    places: list[str],
    kinds: tuple[str, ...],
    clean_engine: Dockerd,
    faulty: Callable[..., FaultyAgent],
) -> None:
    """Every kind of error, from every call, and then it goes on."""
    agent = faulty("", *places, words=("-ip", IP, "-resync", "0.3"))
    for number, kind in enumerate(kinds, 1):
        before = len(agent.log)
        agent.fault(kind)
        clean_engine.api.run(kind, publish_all=True)
        until(lambda: " WARN " in agent.log[before:], agent.tail)  # noqa: B023
        agent.mend()
        agent.expect(*kinds[:number])
    assert agent.running
    assert "Traceback" not in agent.log
