"""One answer, and its bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"

# Each answer has these. Nothing is kept, nothing is guessed, and no other site may embed it.
ALWAYS = {
    "Connection": "close",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body, and the headers that only this answer has."""

    status: int
    body: bytes = b""
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, body: bool = True) -> bytes:
        """The bytes to send, without the `body` for a HEAD request."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        headers = {**ALWAYS, **self.headers}
        if self.status != HTTPStatus.NOT_MODIFIED:
            headers |= {"Content-Type": self.kind, "Content-Length": str(len(self.body))}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head + self.body if body else head


def text(status: int, *lines: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of plain lines."""
    body = "".join(f"{line}\n" for line in lines)
    return Answer(status, body.encode(errors="replace"), headers=headers or {})
