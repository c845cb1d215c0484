"""An engine on a bad day. The file registry shows what the agent makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agent import Agent
from support.engine import Dockerd
from support.hanging import Hanging
from support.proxy import RecordingHTTPProxy, TCPProxy
from support.servers import Consul
from support.wait import until

RunAgent = Callable[..., Agent]
WORDS = ("-ip", "127.10.0.1", "-hostname", "h", "-resync", "0")


class Bench:
    """An agent whose engine is behind a proxy, and the file that it keeps."""

    def __init__(self, engine: Dockerd, agent: RunAgent, folder: Path) -> None:
        self.engine = engine
        self.proxy = TCPProxy(f"unix://{engine.socket}")
        self.file = folder / "services.json"
        host = f"tcp://{self.proxy.address}"
        self.agent = agent(*WORDS, f"file://{self.file}", docker_host=host)

    def expect(self, *names: str) -> None:
        """Wait until exactly these containers are registered."""
        expect(self.file, self.agent, *names)


def registered(file: Path) -> set[str]:
    """The ids in a file."""
    return {group["labels"]["id"] for group in json.loads(file.read_text())}


def expect(file: Path, agent: Agent, *names: str) -> None:
    """Wait until exactly these containers are registered in a file."""
    wanted = {f"h:{name}:80" for name in names}
    until(
        lambda: registered(file) == wanted,
        lambda: f"{wanted}; {agent.tail()}",
        ignore=(OSError, ValueError),
    )


@pytest.fixture
def bench(clean_engine: Dockerd, agent: RunAgent, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(clean_engine, agent, tmp_path)
    yield made
    made.proxy.close()


def test_more_events_missed_than_the_engine_keeps(bench: Bench) -> None:
    """It keeps 256 events. The full listing finds what happened before those."""
    api = bench.engine.api
    api.run("goes", publish_all=True)
    stays = api.run("stays", publish_all=True)
    bench.expect("goes", "stays")
    bench.proxy.freeze()
    bench.proxy.cut()
    api.remove("goes")
    api.run("comes", publish_all=True)
    for number in range(300):
        api.rename(stays, f"stays{number}")
    bench.proxy.thaw()
    bench.expect("comes", "stays299")


def test_a_stream_that_stalls_is_left(bench: Bench) -> None:
    """No data and no error: only another request can tell."""
    bench.engine.api.run("before", publish_all=True)
    bench.expect("before")
    bench.proxy.freeze()
    bench.engine.api.remove("before")
    bench.engine.api.run("after", publish_all=True)
    bench.agent.wait_log("Docker engine: .*; retrying")
    bench.proxy.thaw()
    bench.expect("after")
    bench.agent.wait_log("Docker engine: recovered")


def test_a_frozen_engine_goes_on(bench: Bench) -> None:
    bench.engine.api.run("web1", publish_all=True)
    bench.expect("web1")
    bench.engine.freeze()
    bench.agent.wait_log("Docker engine: .*; retrying")
    bench.engine.thaw()
    bench.engine.api.run("web2", publish_all=True)
    bench.expect("web1", "web2")
    assert "Traceback" not in bench.agent.log


def test_containers_that_live_for_milliseconds_leave_nothing(bench: Bench) -> None:
    for number in range(15):
        bench.engine.api.run(f"short{number}", publish_all=True, command=("true",))
    bench.engine.api.run("long", publish_all=True)
    bench.expect("long")


def test_a_restart_loop_floods_no_registry_and_starves_nobody(
    clean_engine: Dockerd, consul: Consul, agent: RunAgent
) -> None:
    proxy = RecordingHTTPProxy(consul.address)
    try:
        agent(*WORDS, f"consul://{proxy.address}")
        loop = ("sh", "-c", "sleep 0.1; exit 1")
        clean_engine.api.run("loop", publish_all=True, command=loop, restart="always")
        for number in range(5):
            name = f"calm{number}"
            clean_engine.api.run(name, publish_all=True)
            until(lambda: f"h:{name}:80" in consul.api("agent/services"), name)  # noqa: B023
        restarts = "RestartCount"
        until(lambda: clean_engine.api.inspect("loop")[restarts] >= 7, "seven restarts")
        calm = [each for each in proxy.writes if b"calm" in each.body or "calm" in each.path]
        assert len(calm) == 5
        assert len(proxy.writes) - len(calm) <= 2 * 5
        clean_engine.api.remove("loop")
        until(lambda: "h:loop:80" not in consul.api("agent/services"), "the loop's end")
        clean_engine.api.clear()
        until(lambda: consul.api("agent/services") == {}, "an empty Consul")
    finally:
        proxy.close()


def test_a_container_that_cannot_be_inspected(agent: RunAgent, tmp_path: Path) -> None:
    """Its lock is held: others come and go meanwhile, and what is known of it stays."""
    hanging = Hanging(tmp_path)
    engine = Dockerd(tmp_path / "engine", flags=[hanging.flag])
    file = tmp_path / "services.json"

    def run() -> Agent:
        words = (*WORDS, "-log-format", "json", f"file://{file}")
        return agent(*words, docker_host=engine.host)

    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        stuck = engine.api.run("stuck", publish_all=True, Runtime="hanging")
        engine.api.run("goes", publish_all=True)
        first = run()
        expect(file, first, "stuck", "goes")
        hanging.hang(engine.api, [stuck])
        first.stop()
        second = run()
        engine.api.remove("goes")
        engine.api.run("comes", publish_all=True)
        said = f"container {stuck[:12]} cannot be inspected .*: its services stay"
        line = json.loads(second.wait_log(f".*{said}.*\n")[0])
        assert (line["event"], line["reason"]) == ("inspect_failed", "not_inspected")
        assert line["container_id"] == stuck
        until(lambda: "h:comes:80" in registered(file), second.tail)
        assert "h:stuck:80" in registered(file), "nothing is removed while it is unknown"
        hanging.join()
        expect(file, second, "stuck", "comes")
    finally:
        hanging.join()
        engine.remove()


def test_a_restart_with_live_restore_writes_nothing(
    consul: Consul, agent: RunAgent, tmp_path: Path
) -> None:
    """The containers go on, and so do their services. A stop takes the socket's file away."""
    engine = Dockerd(tmp_path / "engine", live_restore=True)
    proxy = RecordingHTTPProxy(consul.address)
    try:
        engine.start()
        engine.api.import_image("web", expose=[80])
        engine.api.run("web1", publish_all=True)
        run = agent(*WORDS, f"consul://{proxy.address}", docker_host=engine.host)
        until(lambda: "h:web1:80" in consul.api("agent/services"), run.tail)
        for number, end in enumerate((engine.stop, engine.kill), 1):
            end()
            until(lambda: run.log.count("WARN  Docker engine: ") == number, run.tail)  # noqa: B023
            engine.start()
            until(lambda: run.log.count("Docker engine: recovered") == number, run.tail)  # noqa: B023
            assert len(proxy.writes) == number
            engine.api.run(f"more{number}", publish_all=True)
            until(lambda: f"h:more{number}:80" in consul.api("agent/services"), run.tail)  # noqa: B023
    finally:
        proxy.close()
        engine.remove()


def test_an_engine_that_is_away_costs_no_descriptors(agent: RunAgent, tmp_path: Path) -> None:
    engine = Dockerd(tmp_path / "engine")
    try:
        engine.start()
        run = agent(*WORDS, f"file://{tmp_path}/services.json", docker_host=engine.host)

        def descriptors() -> int:
            return len(list(Path(f"/proc/{run.pid}/fd").iterdir()))

        run.wait_log("Docker engine .* at")
        before = until(descriptors, "a look")
        engine.kill()
        run.wait_log("and 10 attempts")
        assert descriptors() <= before + 1
    finally:
        engine.remove()
