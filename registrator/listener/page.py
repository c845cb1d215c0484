"""The page: one file without data, which asks for ``/api/state`` and shows it.

Its policy lets the browser run the script and the style of the file alone, by their hashes. So text
that a container puts into the state cannot run, even if the script had a flaw.
"""

import base64
import gzip
import hashlib
import re
from functools import cached_property
from pathlib import Path

from registrator.listener.answers import HTML, Answer
from registrator.listener.requests import Request

FILE = Path(__file__).with_name("page.html")


class Page:
    """Answers with the page. It reads the file at the first request."""

    def answer(self, request: Request) -> Answer:
        """The page, or that the client has it already."""
        if request.has(self._tag):
            return Answer(304, headers=self._headers)
        if request.accepts("gzip"):
            headers = {**self._headers, "Content-Encoding": "gzip"}
            return Answer(200, self._packed, HTML, headers)
        return Answer(200, gzip.decompress(self._packed), HTML, self._headers)

    @cached_property
    def _packed(self) -> bytes:
        return gzip.compress(FILE.read_bytes(), mtime=0)

    @cached_property
    def _tag(self) -> str:
        return f'W/"{hashlib.blake2b(self._packed, digest_size=12).hexdigest()}"'

    @cached_property
    def _headers(self) -> dict[str, str]:
        return {
            "ETag": self._tag,
            "Vary": "Accept-Encoding",
            "Content-Security-Policy": policy(gzip.decompress(self._packed).decode()),
            "Referrer-Policy": "no-referrer",
        }


def policy(page: str) -> str:
    """The policy of this page: it runs its own script and style, and asks this agent."""
    rules = {
        "default-src": "'none'",
        "script-src": _hashes("script", page),
        "style-src": _hashes("style", page),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes(element: str, page: str) -> str:
    found = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (hashlib.sha256(each.encode()).digest() for each in found)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
