"""The host's own address: its name's, else its default route's, never loopback."""

import ipaddress
import socket
import threading
from pathlib import Path

import pytest

from registrator.system import hostaddr
from registrator.system.hostaddr import default_route_address, host_address, host_addresses, resolve


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (["192.0.2.5"], "192.0.2.5"),
        (["2001:db8::5", "192.0.2.5"], "192.0.2.5"),
        (["2001:db8::5"], "2001:db8::5"),
        (["127.0.1.1"], "198.51.100.1"),
        (["127.0.1.1", "2001:db8::5"], "198.51.100.1"),
        (["::1"], "198.51.100.1"),
        (["fe80::1%eth0"], "198.51.100.1"),
        (["fe80::1"], "198.51.100.1"),
        ([], "198.51.100.1"),
    ],
)
def test_the_hosts_address(resolved: list[str], expected: str) -> None:
    assert host_address("h", lambda _: resolved, lambda: "198.51.100.1") == expected


def test_no_address_at_all() -> None:
    assert host_address("h", lambda _: ["127.0.0.1"], lambda: "") == ""


def test_resolving() -> None:
    assert set(resolve("localhost")) & {"127.0.0.1", "::1"}
    assert resolve("no-such-host.invalid") == []
    assert resolve("x" * 300) == []


def test_a_resolver_that_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        release.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        assert resolve("h", timeout=0.01) == []
    finally:
        release.set()


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
