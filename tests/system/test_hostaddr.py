"""The host's own address: its name's, else its default route's, never loopback."""

import ipaddress
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support.names import Mute, resolve_as

from registrator.system import hostaddr
from registrator.system.hostaddr import (
    STABLE,
    Choice,
    Found,
    Rank,
    default_route_address,
    find_address,
    find_ipv6_first,
    host_addresses,
    resolve,
    watch_address,
)

NAME_4 = Found(Rank.NAME_4, "192.0.2.5")
NAME_6 = Found(Rank.NAME_6, "2001:db8::5")
ROUTE_4 = Found(Rank.ROUTE_4, "198.51.100.1")
OTHER_4 = Found(Rank.ROUTE_4, "198.51.100.2")
ROUTE_6 = Found(Rank.ROUTE_6, "2001:db8::1")
ALL = frozenset(found.address for found in (NAME_4, NAME_6, ROUTE_4, OTHER_4, ROUTE_6))


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (["192.0.2.5"], NAME_4),
        (["2001:db8::5", "192.0.2.5"], NAME_4),
        (["2001:db8::5"], NAME_6),
        (["127.0.1.1"], ROUTE_4),
        (["127.0.1.1", "2001:db8::5"], ROUTE_4),
        (["::1"], ROUTE_4),
        (["fe80::1%eth0"], ROUTE_4),
        (["fe80::1"], ROUTE_4),
        ([], ROUTE_4),
    ],
)
def test_the_hosts_address(resolved: list[str], expected: Found) -> None:
    assert find_address("h", lambda _: resolved, lambda: "198.51.100.1") == expected


def test_an_address_of_an_ipv6_route() -> None:
    assert find_address("h", lambda _: [], lambda: "2001:db8::1") == ROUTE_6


def test_no_address_at_all() -> None:
    assert find_address("h", lambda _: ["127.0.0.1"], lambda: "") == Found()


@pytest.mark.parametrize(
    ("resolved", "route_6", "expected"),
    [
        (["192.0.2.5", "2001:db8::5"], "2001:db8::1", Found(Rank.PREFERRED_NAME, "2001:db8::5")),
        (["192.0.2.5"], "2001:db8::1", Found(Rank.PREFERRED_ROUTE, "2001:db8::1")),
        (["192.0.2.5", "::1"], "2001:db8::1", Found(Rank.PREFERRED_ROUTE, "2001:db8::1")),
        (["192.0.2.5"], "", NAME_4),
        (["127.0.1.1"], "", ROUTE_4),
        ([], "", ROUTE_4),
    ],
)
def test_the_hosts_ipv6_address_comes_first_if_it_is_preferred(
    resolved: list[str], route_6: str, expected: Found
) -> None:
    found = find_ipv6_first("h", lambda _: resolved, lambda: route_6, lambda: "198.51.100.1")
    assert found == expected


def test_a_preferred_address_that_comes_late_is_taken() -> None:
    preferred = Found(Rank.PREFERRED_ROUTE, ROUTE_6.address)
    assert moves(NAME_4, *[(preferred, ALL)] * LONG) == [ROUTE_6.address]
    assert moves(preferred, *[(NAME_4, ALL)] * 3 * LONG) == []
    other = Found(Rank.PREFERRED_ROUTE, NAME_6.address)
    assert moves(preferred, *[(other, ALL)] * LONG) == [NAME_6.address], "the route's is another"


def moves(start: Found, *looks: tuple[Found, frozenset[str]]) -> list[str]:
    """The addresses that are taken, with so many looks a second apart from each other."""
    choice, taken = Choice(start), []
    for second, (found, present) in enumerate(looks):
        if choice.look(found, present, second):
            taken.append(choice.current.address)
    return taken


LONG = int(STABLE) + 1


def test_ipv4_that_comes_after_ipv6_is_taken() -> None:
    only_6 = frozenset({ROUTE_6.address})
    looks = [(ROUTE_6, only_6)] * 3 + [(ROUTE_4, ALL)] * LONG
    assert moves(ROUTE_6, *looks) == [ROUTE_4.address]
    assert moves(ROUTE_6, *looks[:-1]) == [], "not before it is stable"


def test_a_moment_without_ipv4_moves_nothing() -> None:
    gone = ALL - {ROUTE_4.address}
    looks = [(ROUTE_6, gone)] * (LONG - 1) + [(ROUTE_4, ALL)]
    assert moves(ROUTE_4, *looks * 3) == []


def test_an_address_that_is_gone_for_long_is_left_and_is_taken_again() -> None:
    gone = ALL - {ROUTE_4.address}
    looks = [(ROUTE_6, gone)] * LONG + [(ROUTE_4, ALL)] * LONG
    assert moves(ROUTE_4, *looks) == [ROUTE_6.address, ROUTE_4.address]


def test_another_default_route_is_followed_and_back() -> None:
    gone = ALL - {ROUTE_4.address}
    looks = [(OTHER_4, gone)] * LONG + [(ROUTE_4, ALL)] * LONG
    assert moves(ROUTE_4, *looks) == [OTHER_4.address, ROUTE_4.address]


def test_a_name_that_is_not_resolved_moves_nothing() -> None:
    assert moves(NAME_4, *[(ROUTE_4, ALL)] * 3 * LONG) == []
    same_route = Found(Rank.ROUTE_4, NAME_4.address)
    looks = [(same_route, ALL)] * LONG + [(ROUTE_4, ALL)] * LONG
    assert moves(NAME_4, *looks) == [], "it was found by the better way once"


def test_names_that_are_resolved_in_turn_move_nothing() -> None:
    other = Found(Rank.NAME_4, OTHER_4.address)
    assert moves(NAME_4, *[(other, ALL)] * 3 * LONG) == []


def test_a_name_that_is_resolved_late_is_followed() -> None:
    assert moves(ROUTE_4, *[(NAME_4, ALL)] * LONG) == [NAME_4.address]
    elsewhere = ALL - {NAME_4.address}
    assert moves(ROUTE_4, *[(NAME_4, elsewhere)] * 3 * LONG) == [], "this host does not have it"


def test_the_first_address_is_taken_once_it_is_stable() -> None:
    none: frozenset[str] = frozenset()
    looks = [(Found(), none)] * 3 + [(ROUTE_6, ALL)] * LONG
    assert moves(Found(), *looks) == [ROUTE_6.address]


def test_looks_are_frequent_while_something_may_change() -> None:
    choice = Choice(ROUTE_4)
    calm = choice.period
    choice.look(OTHER_4, ALL, 0)
    assert choice.period < calm
    assert Choice(Found()).period < calm


def test_watching_tells_of_the_new_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hostaddr, "WATCH_PERIOD", 0.001)
    monkeypatch.setattr(hostaddr, "SEARCH_PERIOD", 0.001)
    monkeypatch.setattr(hostaddr, "host_addresses", lambda: ALL)
    monkeypatch.setattr(hostaddr, "find_address", lambda _: ROUTE_4)
    stop, told = threading.Event(), []
    seconds = iter(range(1000))

    def use(address: str, present: frozenset[str]) -> None:
        told.append((address, present))
        stop.set()

    watch_address(ROUTE_6, use, stop, lambda: next(seconds))
    assert told == [(ROUTE_4.address, ALL)]
    assert "the host's address is 198.51.100.1 now (it was 2001:db8::1)" in caplog.text


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError, OSError])
def test_addresses_that_cannot_be_read_are_none(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def read_text(_: Path) -> str:
        raise error

    monkeypatch.setattr(Path, "read_text", read_text)
    assert host_addresses() == frozenset()


def test_resolving() -> None:
    assert set(resolve("localhost")) & {"127.0.0.1", "::1"}
    assert resolve("no-such-host.invalid") == []
    assert resolve("x" * 300) == []


def test_a_resolver_that_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Mute()) as mute:
        resolve_as(monkeypatch, "h", mute)
        assert resolve("h", timeout=0.01) == []


def test_the_default_route_is_this_hosts_or_none() -> None:
    address = default_route_address()
    assert address == "" or address in host_addresses()


def test_without_any_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostaddr, "_ELSEWHERE", ((socket.AF_INET, "127.0.0.9"),))
    assert default_route_address() == ""


def test_every_address_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
        "     |-- 192.0.2.0\n        /24 link UNICAST\n"
        "     |-- 192.0.2.7\n        /32 host LOCAL\n"
        "     |-- 192.0.2.255\n        /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "20010db8000000000000000000000007 02 40 00 80     eth0\n"
    )
    assert host_addresses(tmp_path) == {"192.0.2.7", "2001:db8::7"}
    assert host_addresses(tmp_path / "nowhere") == frozenset()
    for address in host_addresses():
        assert not ipaddress.ip_address(address).is_loopback
