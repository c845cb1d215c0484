"""A body that is costly to make: it is made anew for a tenth of the time at most."""

import hashlib
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

from registrator.listener.answers import Answer
from registrator.listener.requests import Request

# A body is given again for so many times what it cost, and for at most so many seconds.
SHARE, MAX_AGE = 9, 1.0

# The other threads run for so many seconds each time.
BREATH = 0.0001

# zlib's window (12 bits, and 16 more for gzip's format) and the size of its table. They take 32 KiB
# for a moment. By default it is 256, and the bodies are no smaller.
WINDOW, TABLE = 16 + 12, 5


def breathe() -> None:
    """Let the other threads run. An event must not wait until all of a body is made."""
    time.sleep(BREATH)


class _Made(NamedTuple):
    """A compressed body and its tag. Kept in this form it needs a twentieth of the memory."""

    body: bytes
    tag: str
    until: float


class Rendered:
    """Makes the body with `make`, gives it to all who ask, and makes it anew after a while.

    The processor time that it takes is a tenth of one core at most, however many ask. `kind` is the
    content type.
    """

    def __init__(
        self,
        make: Callable[[], bytes],
        kind: str,
        clock: Callable[[], float] = time.monotonic,
        cost: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make = make
        self._kind = kind
        self._clock = clock
        self._cost = cost
        self._made: _Made | None = None

    def answer(self, request: Request) -> Answer:
        """The answer to a request, which may be that nothing has changed."""
        made = self._fresh()
        headers = {"ETag": made.tag, "Vary": "Accept-Encoding"}
        if request.has(made.tag):
            return Answer(304, headers=headers)
        if request.accepts("gzip"):
            return Answer(200, made.body, self._kind, {**headers, "Content-Encoding": "gzip"})
        return Answer(200, zlib.decompress(made.body, wbits=31), self._kind, headers)

    def _fresh(self) -> _Made:
        if self._made is None or self._clock() >= self._made.until:
            began = self._cost()
            body = self._make()
            tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
            made = zlib.compressobj(level=1, wbits=WINDOW, memLevel=TABLE)
            packed = made.compress(body) + made.flush()
            age = min(MAX_AGE, SHARE * (self._cost() - began))
            self._made = _Made(packed, tag, self._clock() + age)
        return self._made
