"""The address of ``-http``: what can be read, and who may come in by its socket."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.require import require

from registrator.listener.addresses import (
    FORM,
    ListenAddress,
    is_allowed,
    open_private,
    open_socket,
    private_name,
    read_address,
    remove,
)

GOOD = {
    ":9909": (ListenAddress("", 9909), False),
    "0.0.0.0:9909": (ListenAddress("", 9909), False),
    "127.0.0.1:9909": (ListenAddress("127.0.0.1", 9909), True),
    " localhost:1 ": (ListenAddress("127.0.0.1", 1), True),
    "192.0.2.1:65535": (ListenAddress("192.0.2.1", 65535), False),
    "[::1]:80": (ListenAddress("::1", 80), True),
    "[2001:DB8::1]:80": (ListenAddress("2001:db8::1", 80), False),
    "unix:///run/registrator.sock": (ListenAddress(path="/run/registrator.sock"), True),
}
BAD = (
    "9909", "127.0.0.1", ":0", ":65536", ":-1", ":²", "::1:80", "[::1]", "[::1:80", "web:80",
    "300.1.1.1:80", "1.2.3:80", "http://127.0.0.1:80", "unix://run/a.sock", "unix://", "unix:///",
    "unix:///a\nb", "unix:///" + "x" * 200, "127.0.0.1:80/path", "user:s3cret@127.0.0.1:80",
)  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_read(text: str) -> None:
    address, is_local = GOOD[text]
    assert read_address(text) == address
    assert read_address(str(address)) == address
    assert address.is_local is is_local


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_address_is_named_without_its_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be ") as error:
        read_address(text)
    assert str(error.value) in (FORM, "must be a path of at most 107 bytes")


def test_a_socket_with_a_path_is_for_its_user_alone(tmp_path: Path) -> None:
    address = ListenAddress(path=str(tmp_path / "a.sock"))
    with closing(open_socket(address)):
        assert stat.S_IMODE(Path(address.path).stat().st_mode) == 0o600
        with pytest.raises(OSError, match="in use"):
            open_socket(address)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address.path)
    # Its agent was killed: the path stays, and the next agent takes it over.
    open_socket(address).close()
    remove(address)
    assert not Path(address.path).exists()


def test_a_file_in_its_place_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.sock"
    file.write_text("precious")
    with pytest.raises(OSError, match="no socket stands there"):
        open_socket(ListenAddress(path=str(file)))
    assert file.read_text() == "precious"


def test_all_addresses_are_those_of_both_families() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with closing(open_socket(ListenAddress("", port))):
        for host in ("127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])):
            socket.create_connection((host, port), timeout=60).close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    name = private_name()
    with closing(open_private(name)) as door, socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        accepted, _ = door.accept()
        with closing(accepted):
            yield accepted, client


def test_the_own_user_is_allowed(pair: tuple[socket.socket, socket.socket]) -> None:
    assert is_allowed(pair[0])


def test_two_private_sockets_have_other_names() -> None:
    first, second = private_name(), private_name()
    assert first != second
    assert len(first) > 32


def test_another_user_is_not_allowed() -> None:
    require("root", os.geteuid() == 0, "changing the user needs it")
    name = private_name()
    with closing(open_private(name)) as door:
        child = os.fork()
        if not child:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"\0{name}")
            os._exit(0)
        os.waitpid(child, 0)
        accepted, _ = door.accept()
        with closing(accepted):
            assert not is_allowed(accepted)
