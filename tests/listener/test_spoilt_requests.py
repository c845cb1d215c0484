"""Spoils requests in random places: each gets one well-formed answer, and no other error.

`make fuzz` runs it for as long as one likes.
"""

from __future__ import annotations

import os
import re
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.health import Health
from registrator.listener.connection import Connection, Wants
from registrator.listener.requests import END, Refused, Request, parse
from registrator.listener.site import Site
from registrator.status.board import Board

# `make fuzz` sets it.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))

WORDS = st.sampled_from(
    [
        b"GET", b"HEAD", b"POST", b" ", b"  ", b"/", b"/api/state", b"/livez", b"/../", b"//",
        b"?", b"%00", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"\r\n", b"\n", b"\r", b"\r\n\r\n",
        b"Host: localhost", b"Host: [::1]:1", b"host:evil.example", b"Host:", b"Content-Length: 0",
        b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"If-None-Match: *",
        b"Accept-Encoding: gzip;q=0, gzip", b"Sec-Fetch-Site: cross-site", b":", b"\x00", b"\x7f",
        b"\xff\xfe", b"A: " + b"x" * 9000, b"\t", b" folded",
    ]
)  # fmt: skip
SENT = st.lists(WORDS | st.binary(max_size=8), max_size=30).map(b"".join)
ORDINARY = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
SPOILT = st.tuples(st.integers(0, len(ORDINARY)), SENT, st.integers(0, 20)).map(
    lambda cut: ORDINARY[: cut[0]] + cut[1] + ORDINARY[cut[0] + cut[2] :]
)
ANSWER = re.compile(rb"HTTP/1\.1 (200|304|400|403|404|405|421|431|503) [A-Za-z -]+\r\n")


def read_or_refused(head: bytes) -> Request | Refused:
    try:
        return parse(head)
    except Refused as why:
        return why


@settings(max_examples=EXAMPLES)
@given(SENT | SPOILT)
def test_a_head_is_read_or_refused(sent: bytes) -> None:
    read = read_or_refused(sent.partition(END)[0])
    if isinstance(read, Refused):
        assert read.status in (400, 405)
        assert str(read).isascii()
        return
    assert read.method in ("GET", "HEAD")
    assert re.fullmatch(r"/[\x21-\x7e]*", read.path)
    assert not any(re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text) for text in read.headers.values())


def answered(sent: bytes, cuts: list[int]) -> bytes:
    """The bytes that a client gets which sends these bytes in such pieces, and then no more."""
    health = Health()
    site = Site(Board(["consul://h:8500"]), health)
    ours, client = socket.socketpair()
    with ours, client:
        served = Connection(ours, site.answer, lambda why: site.refusal(why).encode(), 0)
        wants = served.go_on(0)
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            if wants is Wants.NOTHING:
                break
            client.sendall(sent[start:end])
            wants = served.go_on(0)
        if wants is not Wants.NOTHING:
            client.shutdown(socket.SHUT_WR)
        for _ in range(100):
            if wants is Wants.NOTHING:
                break
            wants = served.go_on(0)
        assert wants is Wants.NOTHING
        ours.shutdown(socket.SHUT_WR)
        found = b""
        while got := client.recv(65536):
            found += got
    health.close()
    return found


@settings(max_examples=EXAMPLES)
@given(SENT | SPOILT, st.lists(st.integers(0, 200), max_size=4))
def test_each_client_gets_one_answer_or_none(sent: bytes, cuts: list[int]) -> None:
    found = answered(sent, sorted(min(cut, len(sent)) for cut in cuts))
    if END not in sent and len(sent) <= 8192:
        assert found == b""
        return
    assert ANSWER.match(found), found[:200]
    head, _, body = found.partition(END)
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    assert length is None or not body or len(body) == int(length[1])


def test_an_ordinary_request_is_among_them() -> None:
    assert answered(ORDINARY, [3, 20]).startswith(b"HTTP/1.1 200 OK\r\n")
