"""Reads the head of one HTTP request, and refuses what no ordinary client sends.

A pure function of bytes. The clients are untrusted.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

# A head of more bytes than this is refused.
MAX_HEAD = 8192
END = b"\r\n\r\n"

_LINE = re.compile(r"([A-Za-z]{1,32}) ([^ ]+) HTTP/1\.([01])")
_PATH = re.compile(r"/[\x21-\x7e]*")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::[0-9]{1,5})?")


class Refused(Exception):
    """The request gets no more than this status and a line that says why."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """The thing that a client asks for. The names of the headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    def accepts(self, encoding: str) -> bool:
        """Whether the client takes a body with this encoding."""
        for word in self.headers.get("accept-encoding", "").split(","):
            name, _, weight = word.partition(";")
            if name.strip().lower() == encoding:
                return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
        return False

    def has(self, tag: str) -> bool:
        """Whether the client says that it has the answer with this weak tag already."""
        known = self.headers.get("if-none-match", "")
        return known.strip() == "*" or tag in (each.strip() for each in known.split(","))


def parse(head: bytes) -> Request:
    """The request whose head this is, without the empty line at its end. Raises `Refused`."""
    first, *rest = head.decode("latin-1").split("\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Refused(400, "this is no HTTP request")
    method, target, version = line.groups()
    headers = _headers(rest)
    if version == "1" and "host" not in headers:
        raise Refused(400, "the request has no Host header")
    if method not in ("GET", "HEAD"):
        raise Refused(405, "only GET and HEAD are answered", Allow="GET, HEAD")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Refused(400, "a request must have no body")
    if not _PATH.fullmatch(target):
        raise Refused(400, "the path is not one that a browser sends")
    return Request(method, target.partition("?")[0], headers)


def _headers(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise Refused(400, "a header cannot be read")
        name, value = match[1].lower(), match[2].rstrip()
        if name in found:
            if name in ("host", "content-length"):
                raise Refused(400, f"the request has more than one {name} header")
            value = f"{found[name]}, {value}"
        found[name] = value
    return found


def check_origin(request: Request, names: Collection[str]) -> None:
    """Refuse what another site makes a browser ask. Raises `Refused`.

    A page of another site can point a name of its own at this host (DNS rebinding). So the name has
    to be an IP address, ``localhost``, or one of `names`.
    """
    host = _HOST.fullmatch(request.headers.get("host", ""))
    if host is None or not (_is_ip(host[1] or host[2]) or _name(host[2] or "") in names):
        known = ", ".join(sorted(names))
        raise Refused(421, f"this host is not known by that name: use its IP address, or {known}")
    if request.headers.get("sec-fetch-site", "").strip().lower() == "cross-site":
        raise Refused(403, "another site must not ask for this: type the address into the browser")


def _name(text: str) -> str:
    return text.lower().removesuffix(".")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
