"""One request to a server of the tests, past any proxy of the machine."""

from __future__ import annotations

import urllib.error
import urllib.request

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(request: urllib.request.Request, timeout: float = 30.0) -> bytes:
    """The body of the answer within `timeout` seconds.

    Raises `HTTPError` for a refusal, with the answer's text in its message. It is closed then,
    since Python 3.14 warns of one that is left open. Raises `OSError` without an answer.
    """
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read().decode(errors='replace').strip()}"
        error.close()
        raise
