"""A body that is costly to make: how often it is made, and in which forms it is given."""

from __future__ import annotations

import zlib

from registrator.listener.rendered import MAX_AGE, Rendered
from registrator.listener.requests import Request


class Source:
    """Counts how often the body is made. Each time it costs `cost` seconds."""

    def __init__(self, cost: float) -> None:
        self.made = 0
        self.body = b"body"
        self.now = self.spent = 0.0
        self._cost = cost
        self.rendered = Rendered(self.make, "text/x", lambda: self.now, lambda: self.spent)

    def make(self) -> bytes:
        self.made += 1
        self.spent += self._cost
        return self.body

    def ask(self, **headers: str) -> tuple[int, bytes, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.rendered.answer(Request("GET", "/", named))
        return answer.status, answer.body, answer.headers["ETag"]


def test_it_is_made_for_a_tenth_of_the_time_at_most() -> None:
    source = Source(cost=0.01)
    for step in range(1000):
        source.now = step / 1000
        assert source.ask()[0] == 200
    assert 10 <= source.made <= 12


def test_it_is_never_older_than_the_limit() -> None:
    source = Source(cost=60)
    source.ask()
    source.now = MAX_AGE
    source.ask()
    assert source.made == 2


def test_who_has_it_gets_no_body() -> None:
    source = Source(cost=0)
    _, _, tag = source.ask()
    assert source.ask(if_none_match=tag) == (304, b"", tag)
    source.body = b"another"
    status, body, other = source.ask(if_none_match=tag)
    assert (status, body) == (200, b"another")
    assert other != tag


def test_it_is_packed_for_who_can_unpack_it() -> None:
    source = Source(cost=0)
    source.body = b"long " * 1000
    answer = source.rendered.answer(Request("GET", "/", {"accept-encoding": "gzip, br"}))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert zlib.decompress(answer.body, wbits=31) == source.body
    assert len(answer.body) < 200
    plain = source.rendered.answer(Request("GET", "/", {}))
    assert "Content-Encoding" not in plain.headers
    assert plain.body == source.body
    assert plain.kind == answer.kind == "text/x"
