"""Lines of the event stream, in the forms that engines give."""

import json

import pytest

from registrator.engine.event_lines import parse_event
from registrator.model import ContainerHealth, Event


def line(**parts: object) -> bytes:
    """The line of an event of the container `abc`."""
    made = {"Type": "container", "Action": "die", "Actor": {"ID": "abc"}, "timeNano": 5}
    return json.dumps(made | parts).encode()


def test_events_of_several_forms() -> None:
    old = parse_event(b'{"status":"start","id":"abc","time":5}')
    assert old == Event("abc", "start", 5 * 10**9)
    network = parse_event(
        b'{"Type":"network","Action":"connect","timeNano":7,'
        b'"Actor":{"ID":"net","Attributes":{"container":"abc","name":"n"}}}'
    )
    assert network == Event("abc", "connect", 7)
    podman = parse_event(
        b'{"Type":"network","Action":"disconnect","timeNano":7,'
        b'"Actor":{"ID":"abc","Attributes":{"name":"web1","network":"podman","podId":""}}}'
    )
    assert podman == Event("abc", "disconnect", 7)
    assert parse_event(b'{"Type":"network","Action":"create","Actor":{"ID":"net"}}') is None
    died = parse_event(b'{"Type":"container","Action":"died","timeNano":8,"Actor":{"ID":"abc"}}')
    assert died == Event("abc", "die", 8)


@pytest.mark.parametrize(
    ("told", "code"),
    [("0", 0), ("137", 137), ("-1", -1), ("9999999999", 9999999999), ("10000000000", None)],
)
def test_the_exit_code_of_an_end(told: str, code: int | None) -> None:
    actor = {"ID": "abc", "Attributes": {"exitCode": told, "name": "web1"}}
    assert parse_event(line(Actor=actor)) == Event("abc", "die", 5, code)


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("15", 15), ("9", 9), ("64", 64), ("", None), ("TERM", None), ("-9", None), ("1000", None),
        ("²", None), (15, None), (None, None), (["15"], None),
    ],
)  # fmt: skip
def test_the_signal_that_was_sent(told: object, number: int | None) -> None:
    actor = {"ID": "abc", "Attributes": {"signal": told, "name": "web1"}}
    assert parse_event(line(Action="kill", Actor=actor)) == Event("abc", "kill", 5, None, number)
    assert parse_event(line(Action="die", Actor=actor)) == Event("abc", "die", 5)


def test_podman_does_not_tell_the_signal() -> None:
    assert parse_event(line(Action="kill", Actor={"ID": "abc"})) == Event("abc", "kill", 5)


@pytest.mark.parametrize(
    ("nano", "seconds", "time"),
    [
        (5, 7, 5),
        (None, 7, 7 * 10**9),
        (0, 7, 7 * 10**9),
        (1, None, 1),
        (2**63 - 1, 7, 2**63 - 1),
        (2**63, 7, 7 * 10**9),
        (None, None, 0),
    ],
)
def test_the_time_in_nanoseconds_counts_and_then_that_in_seconds(
    nano: int | None, seconds: int | None, time: int
) -> None:
    assert parse_event(line(timeNano=nano, time=seconds)) == Event("abc", "die", time)


def test_of_two_spellings_the_newer_one_counts() -> None:
    both = line(status="start", id="def")
    assert parse_event(both) == Event("abc", "die", 5)


def test_an_action_that_cannot_be_read_is_a_hint() -> None:
    assert parse_event(line(Action=5)) == Event("abc", "", 5)


@pytest.mark.parametrize("action", ["connect", "disconnect"])
def test_podman_names_a_container_by_the_event_of_a_network_only_if_it_joins_or_leaves(
    action: str,
) -> None:
    actor = {"ID": "abc", "Attributes": {"name": "web1"}}
    assert parse_event(line(Type="network", Action=action, Actor=actor)) == Event("abc", action, 5)
    assert parse_event(line(Type="network", Action="remove", Actor=actor)) is None


@pytest.mark.parametrize(
    ("parts", "health"),
    [
        ({"Action": "health_status: healthy"}, ContainerHealth.HEALTHY),
        ({"Action": "health_status: unhealthy"}, ContainerHealth.UNHEALTHY),
        ({"Action": "health_status", "HealthStatus": "healthy"}, ContainerHealth.HEALTHY),
        ({"Action": "health_status", "HealthStatus": "starting"}, ContainerHealth.STARTING),
        # Only an inspection can say.
        ({"Action": "health_status"}, None),
        ({"Action": "health_status", "HealthStatus": ["healthy"]}, None),
        ({"Action": "health_status: better than ever"}, None),
    ],
)
def test_the_health_that_a_probe_found(
    parts: dict[str, object], health: ContainerHealth | None
) -> None:
    assert parse_event(line(**parts)) == Event("abc", "health_status", 5, health=health)


def test_no_label_makes_a_health() -> None:
    attributes = {"HealthStatus": "healthy", "health_status": "healthy", "name": "web1"}
    event = parse_event(line(Action="health_status", Actor={"ID": "abc", "Attributes": attributes}))
    assert event == Event("abc", "health_status", 5)
