"""The address of an interface: IPv4 before IPv6, read again when it is time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.namespace import Isolated
from support.wait import DEADLINE

from registrator.system import interfaces
from registrator.system.interfaces import _ipv6_of, interface_address, watch_interface


def test_an_interface_has_the_address_that_the_kernel_says() -> None:
    assert interface_address("lo") == "127.0.0.1"
    assert interface_address("no-such-one") == ""
    assert interface_address("é") == ""


def test_an_ipv6_address_that_lasts_comes_first(tmp_path: Path) -> None:
    rows = [
        ("fe80" + "0" * 26 + "05", "20", "80", "eth0"),
        ("20010db8" + "0" * 22 + "01", "00", "01", "eth0"),  # temporary
        ("20010db8" + "0" * 22 + "02", "00", "20", "eth0"),  # deprecated
        ("20010db8" + "0" * 22 + "03", "00", "40", "eth0"),  # tentative
        ("20010db8" + "0" * 22 + "04", "00", "88", "eth0"),  # a duplicate
        ("20010db8" + "0" * 22 + "06", "00", "80", "eth0"),
        ("20010db8" + "0" * 22 + "05", "00", "80", "eth0"),
        ("20010db8" + "0" * 22 + "00", "00", "80", "eth1"),
    ]
    text = "".join(f"{a} 02 40 {scope} {flags} {name:>8}\n" for a, scope, flags, name in rows)
    (tmp_path / "if_inet6").write_text(text)
    assert _ipv6_of("eth0", tmp_path) == "2001:db8::5"
    (tmp_path / "if_inet6").write_text("".join(text.splitlines(True)[:3]))
    assert _ipv6_of("eth0", tmp_path) == "2001:db8::1", "better than none"
    (tmp_path / "if_inet6").write_text(text.splitlines(True)[0])
    assert _ipv6_of("eth0", tmp_path) == "", "no other host could use it"
    (tmp_path / "if_inet6").write_text("what is this\n")
    assert _ipv6_of("eth0", tmp_path) == ""
    assert _ipv6_of("eth0", tmp_path / "none") == ""


@pytest.fixture
def host() -> Iterator[Isolated]:
    made = Isolated()
    yield made
    made.remove()


def test_both_kinds_of_a_real_interface(host: Isolated) -> None:
    def read(family: int) -> str:
        code = "import sys; from registrator.system.interfaces import interface_address as f\n"
        code += "print(f(sys.argv[1], int(sys.argv[2])))"
        command = [*host.command, sys.executable, "-c", code, "lan", str(family)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    host.inside("link", "add", "lan", "type", "bridge")
    assert (read(4), read(6)) == ("", "")
    host.inside("address", "add", "2001:db8::7/64", "dev", "lan", "nodad")
    assert (read(4), read(6)) == ("2001:db8::7", "2001:db8::7")
    host.inside("address", "add", "192.0.2.7/24", "dev", "lan")
    host.inside("address", "add", "192.0.2.8/24", "dev", "lan")
    assert (read(4), read(6)) == ("192.0.2.7", "2001:db8::7")


class Watched:
    """An interface whose address the test says. `told` are the addresses that were used."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *looks: str,
        current: str = "",
        period: float = 0.001,
    ) -> None:
        self.told: list[str] = []
        self._looks = [*looks]
        self._stop, self.again = threading.Event(), threading.Event()
        monkeypatch.setattr(interfaces, "interface_address", self._read)
        monkeypatch.setattr(interfaces, "SEARCH_PERIOD", 0.001)
        self.thread = threading.Thread(
            target=watch_interface,
            args=("eth0", 4, current, self._use, self._stop, self.again, period),
        )
        self.thread.start()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()

    def _read(self, name: str, family: int) -> str:
        assert (name, family) == ("eth0", 4)
        if len(self._looks) == 1:
            self._stop.set()
        return self._looks.pop(0)

    def _use(self, address: str, present: frozenset[str]) -> None:
        assert address in present
        self.told.append(address)


def test_an_interface_is_awaited_and_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(monkeypatch, "", "", "192.0.2.5", "192.0.2.5", "192.0.2.6", "192.0.2.6")
    assert watched.told == ["192.0.2.5", "192.0.2.6"]
    assert "interface eth0 has address 192.0.2.5 now (it was none)" in caplog.text
    assert "interface eth0 has address 192.0.2.6 now (it was 192.0.2.5)" in caplog.text


def test_an_interface_that_loses_its_address_keeps_it_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(monkeypatch, "", "", "", "192.0.2.5", "", "", current="192.0.2.5")
    assert watched.told == []
    assert caplog.text.count("has no address now: the services stay at 192.0.2.5") == 2


def test_without_a_resync_an_interface_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, again, told = threading.Event(), threading.Event(), []
    read = iter(["192.0.2.6"])
    monkeypatch.setattr(interfaces, "interface_address", lambda *_: next(read))

    def use(address: str, _: frozenset[str]) -> None:
        told.append(address)
        stop.set()

    thread = threading.Thread(
        target=watch_interface, args=("eth0", 4, "192.0.2.5", use, stop, again, 0)
    )
    thread.start()
    again.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert told == ["192.0.2.6"]


def test_an_interface_is_awaited_without_a_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, "", "", "192.0.2.5", period=0)
    assert watched.told == ["192.0.2.5"]
