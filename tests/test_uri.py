"""Registry URIs: every form, and no secret shown."""

import pytest

from registrator.backend import Context
from registrator.uri import Address, parse


def test_forms() -> None:
    uri = parse("etcd://user:p%40ss@a:1,[::1]:2,b/services?value=json&timeout=1")
    assert uri.addresses == (Address("a", 1), Address("::1", 2), Address("b", 0))
    assert (uri.user, uri.password, uri.path) == ("user", "p@ss", "/services")
    assert uri.options == {"value": "json", "timeout": "1"}
    assert [str(a) for a in uri.servers(2379)] == ["a:1", "[::1]:2", "b:2379"]
    assert parse("consul://").servers(8500) == (Address("127.0.0.1", 8500),)
    assert parse("consul-unix:///run/consul.sock").path == "/run/consul.sock"


def test_the_parts_of_a_filter_may_stand_apart() -> None:
    uri = parse("file:///x.json?filter=name=a&timeout=1&filter=label!=b%3Dc%2Cd")
    assert uri.options == {"filter": "name=a,label!=b=c,d", "timeout": "1"}
    assert uri.unknown_options() == []
    with pytest.raises(ValueError, match="more than once"):
        parse("file:///x.json?timeout=1&filter=name=a&timeout=1")


def test_secrets_are_not_shown() -> None:
    uri = parse("consul://s3cret:s3cret@a:8500/?token=s3cret&dc=x")
    assert "s3cret" not in f"{uri} {uri!r}"
    assert str(uri) == "consul://***@a:8500/?dc=x&token=***"
    context = Context(uri, environ={"CONSUL_HTTP_TOKEN": "s3cret"})
    assert "s3cret" not in repr(context)


@pytest.mark.parametrize(
    "text",
    ["", "consul", "consul:a", "consul://a,,b", "consul://a:0", "consul://a:70000", "consul://::1",
     "consul://a..b", "consul://" + "x" * 64,
     "consul://u:s3cret@x@a", "consul://u:s3cret/@a", "consul://u:1/s3cret@a",
     "s3cret:x@a:1", "consul://u:1?s3cret@a", "consul://u:s3cret@a b", "consul://a?x=1&x=2", "consul://u:s3cret@a:b"],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert "s3cret" not in str(caught.value)
