"""Answers that a container or a broken engine spoils: each harms its own container only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPMessage
from typing import Any
from urllib.parse import parse_qs

import pytest

from registrator.engine.answers import container_of, rows
from registrator.engine.client import DockerEngine
from registrator.engine.event_lines import parse_event
from registrator.http import Answer
from registrator.model import EngineUnavailable, Event, Port, Unreadable

ID = "a" * 64
HUGE = "9" * 5000


def answer(**parts: object) -> dict[str, Any]:
    """An inspection's answer of a container on the host's network."""
    return {
        "Id": ID, "Name": "/x", "Config": {"Image": "i"}, "HostConfig": {"NetworkMode": "host"},
        "State": {"Running": True}, "NetworkSettings": {},
    } | parts  # fmt: skip


# The third has digits of another alphabet.
SPECS = ["²/tcp", f"{HUGE}/tcp", "\uff18\uff10/tcp", "+1/tcp", "", "/tcp", "80/x\n"]


@pytest.mark.parametrize("spec", SPECS, ids=ascii)
def test_a_port_is_one_to_five_digits(spec: str) -> None:
    found = container_of(answer(Config={"Image": "i", "ExposedPorts": {spec: {}, "443/tcp": {}}}))
    assert found.ports == (Port(443, "tcp"),)
    assert found.unreadable.startswith("its port ")


@pytest.mark.parametrize("number", ["²", HUGE, "x", "-1"])
def test_a_port_of_the_host_is_one_to_five_digits(number: str) -> None:
    bound = {"80/tcp": [{"HostIp": "", "HostPort": number}, {"HostIp": "", "HostPort": "81"}]}
    assert container_of(answer(NetworkSettings={"Ports": bound})).ports == (
        Port(80, "tcp", "", 81),
    )


def test_a_port_that_has_no_port_of_the_host_yet_can_be_read() -> None:
    bound = {"80/tcp": [{"HostIp": "", "HostPort": "0"}], "81/tcp": [{"HostPort": ""}]}
    found = container_of(answer(NetworkSettings={"Ports": bound}))
    assert found.ports == (Port(80, "tcp"), Port(81, "tcp"))
    assert found.unreadable == ""


@pytest.mark.parametrize(
    "parts",
    [
        {"Config": [5]},
        {"Config": {"Env": 5}},
        {"Config": {"Env": [5]}},
        {"Config": {"Labels": {"SERVICE_NAME": 5}}},
        {"Config": {"Image": 7}},
        {"Id": 5},
        {"Id": None},
        {"Name": 1.5},
        {"State": "running"},
        {"State": {"ExitCode": "0x"}},
        {"State": {"ExitCode": float("inf")}},
        {"HostConfig": {"NetworkMode": {"a": 1}}},
        {"NetworkSettings": {"Networks": ["bridge"]}},
        {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": 5}}}},
        {"NetworkSettings": {"Ports": {"80/tcp": 5}}},
        {"NetworkSettings": {"Ports": {"80/tcp": [5]}}},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_told_as_such(parts: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        container_of(answer(**parts))


@pytest.mark.parametrize("code", ["²", "--5", HUGE, "", "-"])
def test_a_label_over_an_events_exit_code_hides_no_event(code: str) -> None:
    line = event(Attributes={"exitCode": code})
    assert parse_event(line) == Event(ID, "start", 5)


def event(**actor: object) -> bytes:
    made = {"Type": "container", "Action": "start", "Actor": {"ID": ID, **actor}, "timeNano": 5}
    return json.dumps(made).encode()


@pytest.mark.parametrize("attributes", [[], "x", 5, {"exitCode": 3}, {"exitCode": None}])
def test_an_event_that_cannot_be_read_is_a_hint(attributes: object) -> None:
    assert parse_event(event(Attributes=attributes)) == Event(ID, "start", 5)


@pytest.mark.parametrize("time", ["1", None, -1, 10**30, 1.5, [], True])
def test_an_event_whose_time_cannot_be_read_has_none(time: object) -> None:
    made = {"Type": "container", "Action": "die", "Actor": {"ID": ID}, "timeNano": time}
    assert parse_event(json.dumps(made).encode()) == Event(ID, "die", 0)


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON", b"[]", b"5", b'{"Type":"container"}', b"[" * 100_000, b"\xff\xfe",
        HUGE.encode(), b'{"Type":"container","Actor":5}', b'{"Actor":{"ID":["a"]}}',
        b'{"Type":"container","Actor":{"ID":"../../etc"}}',
    ],
    ids=lambda line: repr(line[:20]),
)  # fmt: skip
def test_an_event_of_nobody_knows_which_container_tells_to_list(line: bytes) -> None:
    assert parse_event(line) == Event("", "", 0)


def test_an_event_that_is_not_about_a_container_is_none() -> None:
    assert parse_event(b'{"Type":"network","Action":"create","Actor":{"ID":"net"}}') is None
    assert parse_event(b'{"Type":"image","Action":"pull","Actor":{"ID":"web:1"}}') is None


class Stream:
    """An answer of `urllib3` whose lines are given."""

    chunked = False
    connection = None

    def __init__(self, *lines: bytes) -> None:
        self._lines = lines

    def stream(self, _: int) -> Iterator[bytes]:
        yield from (line + b"\n" for line in self._lines)

    def close(self) -> None:
        pass


def test_no_line_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    client = DockerEngine({})
    lines = (b"no JSON", event(Attributes={"exitCode": "--5"}), b"[]", event())
    monkeypatch.setattr(client._connection, "stream", lambda _: Stream(*lines))
    start = Event(ID, "start", 5)
    unread = Event("", "", 0)
    assert list(client.events(None)) == [None, unread, start, unread, start]


@pytest.mark.parametrize("more", [(), ("kill",), ("pause", "unpause")])
def test_the_engine_sends_only_events_that_the_options_need(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = DockerEngine({}, more_events=more)
    asked: list[str] = []

    def stream(path: str) -> Stream:
        asked.append(path)
        return Stream()

    monkeypatch.setattr(client._connection, "stream", stream)
    assert list(client.events(None)) == [None]
    (filters,) = parse_qs(asked[0].partition("?")[2])["filters"]
    named = set(json.loads(filters)["event"])
    assert named & {"kill", "pause", "unpause"} == set(more)
    assert named > {"start", "die"}


@pytest.mark.parametrize(
    "row", [5, None, [], {}, {"Id": 5}, {"Id": None}, {"Id": ""}, {"Id": "a/../b"}], ids=str
)
def test_a_row_that_cannot_be_read_hides_no_other(row: object) -> None:
    text = json.dumps([row, {"Id": ID}])
    assert [found for found, _ in rows(text)] == [ID]


@pytest.mark.parametrize(
    "part",
    [{"Ports": 5}, {"Ports": [5]}, {"Ports": {"a": 1}}, {"Names": 7}, {"Labels": []}],
    ids=str,
)
def test_a_row_with_parts_that_cannot_be_read_still_names_its_container(part: Any) -> None:
    assert [found for found, _ in rows(json.dumps([{"Id": ID, **part}]))] == [ID]


@pytest.mark.parametrize("text", ["", "{}", "5", "[", "[{]", "[" * 100_000, "nothing"])
def test_a_listing_that_is_none_is_the_engines_fault(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = DockerEngine({})
    monkeypatch.setattr(client, "_get", lambda *_, **__: whole(text))
    with pytest.raises(EngineUnavailable):
        client.running()


def whole(text: str) -> Answer:
    """A whole answer."""
    return Answer(200, HTTPMessage(), text.encode())


@pytest.mark.parametrize("text", ["[]", "5", "null", '{"ID":5}', '{"Components":[5]}'])
def test_an_engine_that_says_nonsense_of_itself(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = DockerEngine({})
    monkeypatch.setattr(client, "_get", lambda *_, **__: whole(text))
    if text == "null" or not text.startswith("{"):
        with pytest.raises(EngineUnavailable):
            client.identify()
    else:
        assert client.identify().id == ""


def test_ids_are_in_memory_once_and_only_those_of_the_last_listing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def copy() -> str:
        return "".join([*ID])

    client = DockerEngine({})
    monkeypatch.setattr(
        client,
        "_get",
        lambda path, **_: whole(json.dumps(answer() if ID in path else [{"Id": ID}])),
    )
    unlisted = client.inspect(copy())
    assert unlisted is not None
    assert unlisted.id == ID
    assert client._listed == {}, "it would grow for ever without a listing"
    ((first, digest),) = client.running().items()
    found = client.inspect(copy())
    assert found is not None
    assert found.id is first
    ((again, same),) = client.running().items()
    assert (again is first, same is digest) == (True, True)
