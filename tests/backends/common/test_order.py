"""The order of a URI's addresses: each owner has its own, and this host's own address is first."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.names import resolve_as
from support.namespace import Namespace

from registrator.backend import ConfigError, Context, Unavailable, load
from registrator.backends.common import order
from registrator.backends.common.order import Order, is_local
from registrator.model import Identity
from registrator.uri import Address, parse

OWNERS = [f"engine-{number}" for number in range(1000)]
FAR = [Address(f"198.51.100.{number}", 2379) for number in range(1, 6)]
SCHEMES = ["etcd", "etcd-tls", "skydns2", "skydns2-tls", "consulkv", "consulkv-tls"]


def order_of(owner: str, option: str = "") -> Order:
    return Order(Context(parse(f"etcd://h/s{option}"), Identity(owner, "h")))


@given(st.text(), st.permutations(FAR), st.sampled_from(FAR))
def test_an_owner_has_one_order_however_the_uri_lists_the_members(
    owner: str, listed: list[Address], gone: Address
) -> None:
    found = order_of(owner)(FAR)
    assert sorted(found) == FAR
    assert order_of(owner)(listed) == found
    rest = [address for address in found if address != gone]
    assert order_of(owner)(address for address in listed if address != gone) == rest


def test_owners_spread_over_the_members_and_over_the_rest_when_one_is_gone() -> None:
    orders = [order_of(owner)(FAR[:3]) for owner in OWNERS]
    firsts = Counter(found[0] for found in orders)
    assert all(count in range(283, 384) for count in firsts.values()), firsts
    for dead in FAR[:3]:
        seconds = Counter(found[1] for found in orders if found[0] == dead)
        assert len(seconds) == 2
        assert all(abs(count * 2 / firsts[dead] - 1) < 0.25 for count in seconds.values()), seconds


@given(st.text(), st.permutations([*FAR, Address("127.0.0.1", 1), Address("::1", 2)]))
def test_local_addresses_come_first_as_they_are_listed(owner: str, listed: list[Address]) -> None:
    local = [address for address in listed if address not in FAR]
    assert order_of(owner)(listed) == [*local, *order_of(owner)(FAR)]


@given(st.text(), st.permutations([*FAR, Address("127.0.0.1", 1)]))
def test_the_order_of_the_uri(owner: str, listed: list[Address]) -> None:
    assert order_of(owner, "?order=listed")(listed) == listed
    assert order_of(owner, "?order=spread")(listed) == order_of(owner)(listed)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_is_local(host: str) -> None:
    assert is_local(Address(host, 2379))


@pytest.mark.parametrize("host", ["198.51.100.1", "2001:db8::1", "h.example", "fe80::1%no-such"])
def test_another_host_is_not_local(host: str) -> None:
    assert not is_local(Address(host, 2379))


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.remove()


@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
def test_an_address_of_this_host_is_local(host: Namespace, nonlocal_bind: str) -> None:
    """A second address of an interface, too, and even where programs may bind other addresses."""
    first = host.inner
    second, other = f"{first}3", f"{first}4"
    host.inside("address", "add", f"{second}/24", "dev", "eth0")
    ask = (
        "import sys\n"
        "from pathlib import Path\n"
        "from registrator.backends.common.order import is_local\n"
        "from registrator.uri import Address\n"
        "nonlocal_bind, *ips = sys.argv[1:]\n"
        "Path('/proc/sys/net/ipv4/ip_nonlocal_bind').write_text(nonlocal_bind)\n"
        "print(*(ip for ip in ips if is_local(Address(ip, 2379))))"
    )
    command = [*host.command, sys.executable, "-c", ask, nonlocal_bind]
    done = subprocess.run(
        [*command, first, second, other, host.address],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == [first, second]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_choice_is_an_error(scheme: str) -> None:
    with pytest.raises(ConfigError, match="the option order must be spread or listed, not 'x'"):
        load(scheme)(Context(parse(f"{scheme}://h/s?order=x")))


@pytest.mark.parametrize(
    "uri", ["consul://h", "consul-unix:///s", "consulkv-unix:///s:/x", "zookeeper://h", "file:///x"]
)
def test_it_is_no_option_of_registries_that_have_no_such_order(uri: str) -> None:
    with pytest.raises(ConfigError, match="unknown option order"):
        load(parse(uri).scheme)(Context(parse(f"{uri}?order=spread")))


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Nobody listens at the addresses. None of them is local."""
    monkeypatch.setattr(order, "is_local", lambda _: False)
    return str(request.param)


def tried(uri: str, owner: str) -> list[str]:
    """The IP addresses in the order in which a backend tries them."""
    context = Context(parse(uri), Identity(owner, "h"), timeout=60)
    with closing(load(context.uri.scheme)(context)) as backend, pytest.raises(Unavailable) as error:
        backend.list()
    return re.findall(r"127\.0\.0\.\d+", str(error.value))


def test_a_backend_tries_the_addresses_in_this_order(scheme: str) -> None:
    listed = [Address(f"127.0.0.{number}", 9) for number in range(2, 6)]
    uri = f"{scheme}://{','.join(map(str, listed))}/s"
    assert len({str(order_of(owner)(listed)) for owner in OWNERS[:4]}) == 4
    for owner in OWNERS[:4]:
        assert tried(uri, owner) == [address.host for address in order_of(owner)(listed)]
        assert tried(f"{uri}?order=listed", owner) == [address.host for address in listed]


def test_so_it_does_with_the_addresses_of_a_name(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ips = tuple(f"127.0.0.{number}" for number in range(2, 6))
    resolve_as(monkeypatch, "registry.test", lambda: ips)
    for owner in OWNERS[:4]:
        found = tried(f"{scheme}://registry.test:9/s", owner)
        assert found == [each.host for each in order_of(owner)(Address(ip, 9) for ip in ips)]
