"""The head of a request: what is read, and what is refused."""

from __future__ import annotations

import pytest

from registrator.listener.requests import Refused, Request, check_origin, parse

HOST = "Host: 127.0.0.1:9909"


def head(line: str = "GET /api/state HTTP/1.1", *headers: str) -> bytes:
    return "\r\n".join([line, *(headers or (HOST,))]).encode("latin-1")


def test_a_request_of_a_browser() -> None:
    read = parse(head("GET /api/state?x=1 HTTP/1.1", HOST, "ACCEPT-Encoding: br, gzip;q=0.5"))
    assert (read.method, read.path) == ("GET", "/api/state")
    assert read.headers == {"host": "127.0.0.1:9909", "accept-encoding": "br, gzip;q=0.5"}
    assert read.accepts("gzip")
    assert not read.accepts("zstd")


@pytest.mark.parametrize("value", ["gzip;q=0", "gzip; q=0.00", "identity", ""])
def test_an_encoding_that_is_not_taken(value: str) -> None:
    assert not Request("GET", "/", {"accept-encoding": value}).accepts("gzip")


@pytest.mark.parametrize("value", ['W/"a"', '"b", W/"a"', "*"])
def test_a_tag_that_is_known(value: str) -> None:
    assert Request("GET", "/", {"if-none-match": value}).has('W/"a"')


@pytest.mark.parametrize("value", ['W/"ab"', '"b"', ""])
def test_a_tag_that_is_not_known(value: str) -> None:
    assert not Request("GET", "/", {"if-none-match": value}).has('W/"a"')


REFUSED = {
    "no line": (head("", HOST), 400),
    "no version": (head("GET /"), 400),
    "another version": (head("GET / HTTP/2.0"), 400),
    "two blanks": (head("GET  / HTTP/1.1"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a whole address": (head("GET http://127.0.0.1/ HTTP/1.1"), 400),
    "no slash": (head("GET api HTTP/1.1"), 400),
    "a control character": (head("GET /a\x01b HTTP/1.1"), 400),
    "a line feed": (head("GET /a\nb HTTP/1.1"), 400),
    "an escape": (head("GET /\x1b[31m HTTP/1.1"), 400),
    "a byte of UTF-8": (head("GET /\xc3\xa9 HTTP/1.1"), 400),
    "no host": (head("GET / HTTP/1.1", "Accept: */*"), 400),
    "two hosts": (head("GET / HTTP/1.1", HOST, "host: localhost"), 400),
    "a folded header": (head("GET / HTTP/1.1", HOST, " more"), 400),
    "a blank before the colon": (head("GET / HTTP/1.1", HOST, "a : b"), 400),
    "a null in a header": (head("GET / HTTP/1.1", HOST, "a: b\x00"), 400),
    "a body": (head("GET / HTTP/1.1", HOST, "Content-Length: 1"), 400),
    "two lengths": (head("GET / HTTP/1.1", HOST, "Content-Length: 0", "Content-Length: 1"), 400),
    "a chunked body": (head("GET / HTTP/1.1", HOST, "Transfer-Encoding: chunked"), 400),
    **{
        method: (head(f"{method} / HTTP/1.1"), 405)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get")
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_ordinary_client_sends_is_refused(what: str) -> None:
    sent, status = REFUSED[what]
    with pytest.raises(Refused) as why:
        parse(sent)
    assert why.value.status == status
    assert ("Allow" in why.value.headers) is (status == 405)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:9909", "[::1]:9909", "192.0.2.1", "localhost", "LOCALHOST:80",
        "localhost.", "web01", "Web01:9909",
    ],
)  # fmt: skip
def test_a_name_of_this_host(host: str) -> None:
    check_origin(Request("GET", "/", {"host": host}), {"localhost", "web01"})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "web01.evil.example", "127.0.0.1.evil.example", "localhost.evil.example",
        "evil.example:9909", "", "web01:", "web01:80:80", "[web01]", "a@127.0.0.1", "127.0.0.1/",
        "web01, evil.example", "localhost..", "0x7f.1",
    ],
)  # fmt: skip
def test_the_name_of_another_site_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="localhost, web01") as why:
        check_origin(Request("GET", "/", {"host": host}), {"localhost", "web01"})
    assert why.value.status == 421


@pytest.mark.parametrize("site", ["same-origin", "none", "same-site"])
def test_a_page_of_our_own_may_ask(site: str) -> None:
    check_origin(Request("GET", "/", {"host": "[::1]", "sec-fetch-site": site}), ())


def test_another_site_may_not_ask() -> None:
    with pytest.raises(Refused) as why:
        check_origin(Request("GET", "/", {"host": "[::1]", "sec-fetch-site": "Cross-Site "}), ())
    assert why.value.status == 403
