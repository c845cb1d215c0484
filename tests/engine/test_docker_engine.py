"""The engine's client: against a real engine, and the answers that other engines give."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.engine import Dockerd
from support.wait import until

from registrator.engine.client import DockerEngine
from registrator.model import EngineUnavailable, Event

# Seconds for an answer. No engine is frozen but in one test, and the machine may be busy.
TIMEOUT = 60.0

# The SDK leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Have it collected by the test that left it."""
    yield
    gc.collect()


@pytest.fixture
def client(clean_engine: Dockerd) -> Iterator[DockerEngine]:
    made = DockerEngine({"DOCKER_HOST": clean_engine.host}, timeout=TIMEOUT)
    yield made
    made.close()


class Reader:
    """Reads an event stream in a thread, until it ends."""

    def __init__(self, client: DockerEngine, since: int | None = None) -> None:
        self.events: list[Event | None] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(client, since))
        self._thread.start()
        until(lambda: self.events or not self._thread.is_alive(), "the subscription")

    def _read(self, client: DockerEngine, since: int | None) -> None:
        try:
            for event in client.events(since):
                self.events.append(event)
        except EngineUnavailable as error:
            self.error = error

    def actions(self) -> list[str]:
        return [event.action for event in self.events if event]

    def ended(self) -> bool:
        self._thread.join(60)
        return not self._thread.is_alive()


def test_who_the_engine_is(client: DockerEngine) -> None:
    first, second = client.identify(), client.identify()
    assert first == second
    assert first.id
    assert first.name == socket.gethostname()
    assert first.version


def test_the_listing_changes_with_what_an_inspection_would_tell(
    client: DockerEngine, clean_engine: Dockerd
) -> None:
    api = clean_engine.api
    one = api.run("one1", publish_all=True)
    before = client.running()
    assert before.keys() == {one}
    again = client.running()
    assert again == before
    listed = zip([*before.items()], [*again.items()], strict=True)
    assert all(
        id_ is id_again and digest is digest_again
        for (id_, digest), (id_again, digest_again) in listed
    ), "in memory once"
    api.rename(one, "uno1")
    renamed = client.running()
    assert renamed[one] != before[one]
    # Newer engines answer a stop or a start a moment before they list it.
    api.stop(one)
    until(lambda: client.running() == {}, "an empty listing")
    api.start(one)
    started = until(client.running, "the container in the listing")
    assert started[one] != renamed[one]


def test_what_is_read_of_a_container(client: DockerEngine, clean_engine: Dockerd) -> None:
    api = clean_engine.api
    api.network_create("extra")
    made = api.run(
        "full",
        "two",
        ports={"80/tcp": [("127.0.0.1", 0), ("127.0.0.2", 0)], "53/udp": 0},
        env={"SERVICE_NAME": "web", "OTHER": "x", "SERVICE_EMPTY": ""},
        labels={"SERVICE_TAGS": "a=b,c", "other": "x"},
    )
    api.network_connect("extra", made)
    found = client.inspect(made)
    assert found is not None
    assert (found.id, found.name, found.image) == (made, "full", "two")
    assert found.hostname == made[:12]
    assert found.env == {"SERVICE_NAME": "web", "SERVICE_EMPTY": ""}
    assert found.labels == {"SERVICE_TAGS": "a=b,c"}
    assert list(found.networks) == ["bridge", "extra"]
    assert found.exit_code is None
    assert found.started_at > time.time_ns() - 60 * 10**9
    assert {(p.private, p.protocol, p.host_ip) for p in found.ports} >= {
        (80, "tcp", "127.0.0.1"),
        (80, "tcp", "127.0.0.2"),
        (443, "tcp", ""),
    }
    assert all(p.host_port for p in found.ports if p.private != 443)
    api.kill(made)
    until(lambda: client.inspect(made).exit_code == 137, "its end")  # type: ignore[union-attr]
    api.remove(made)
    assert client.inspect(made) is None


def test_a_label_is_kept_where_it_is_asked_for(clean_engine: Dockerd) -> None:
    made = clean_engine.api.run("label1", labels={"my.ip": "10.0.0.9/24"})
    client = DockerEngine({"DOCKER_HOST": clean_engine.host}, labels=("my.ip",))
    found = client.inspect(made)
    assert found is not None
    assert found.labels == {"my.ip": "10.0.0.9/24"}
    client.close()


def test_events_and_their_replay(client: DockerEngine, clean_engine: Dockerd) -> None:
    reader = Reader(client)
    made = clean_engine.api.run("web1", publish_all=True)
    clean_engine.api.kill(made)
    until(lambda: "die" in reader.actions(), "its end")
    start = next(e for e in reader.events if e and e.action == "start")
    died = next(e for e in reader.events if e and e.action == "die")
    assert (start.container_id, died.container_id) == (made, made)
    assert died.exit_code == 137
    assert died.time > start.time
    client.interrupt()
    assert reader.ended()
    replay = Reader(client, start.time)
    until(lambda: "die" in replay.actions(), "the replay")
    assert "start" not in replay.actions()
    client.interrupt()
    assert replay.ended()


def test_a_stream_ends_with_its_engine(tmp_path: Path) -> None:
    engine = Dockerd(tmp_path)
    try:
        engine.start()
        client = DockerEngine({"DOCKER_HOST": engine.host}, timeout=TIMEOUT)
        reader = Reader(client)
        engine.kill()
        assert reader.ended()
        with pytest.raises(EngineUnavailable):
            client.ping()
        engine.start()
        client.ping()
        client.close()
    finally:
        engine.remove()


def test_every_call_ends_at_a_frozen_engine(clean_engine: Dockerd) -> None:
    client = DockerEngine({"DOCKER_HOST": clean_engine.host}, timeout=1)
    until(lambda: client.identify(), "an answer", ignore=(EngineUnavailable,))
    clean_engine.freeze()
    calls: list[Callable[[], object]] = [
        client.ping, client.identify, client.running, lambda: client.inspect("x"),
        lambda: list(client.events(None)),
    ]  # fmt: skip
    for call in calls:
        # The engine stays frozen until each call has ended.
        with pytest.raises(EngineUnavailable):
            call()
    client.close()


def test_no_engine_there(tmp_path: Path) -> None:
    client = DockerEngine({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    with pytest.raises(EngineUnavailable, match="No such file"):
        client.ping()
    client = DockerEngine({"DOCKER_HOST": "tcp://127.0.0.1:1"}, timeout=TIMEOUT)
    with pytest.raises(EngineUnavailable, match="refused"):
        client.ping()


def test_a_version_that_the_engine_does_not_speak(clean_engine: Dockerd) -> None:
    environ = {"DOCKER_HOST": clean_engine.host, "DOCKER_API_VERSION": "9.99"}
    client = DockerEngine(environ, timeout=TIMEOUT)
    with pytest.raises(EngineUnavailable, match=r"400.*too new"):
        client.running()
    client.close()
