"""Writes to a Consul agent, several at a time: it takes one service per request."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

from registrator.backend import Unavailable

from ..common.batches import chunks
from .errors import Denied, Refused
from .transport import WORKERS

# The number of writes that wait for a thread at the same time. Each takes memory.
_AT_ONCE = 500


class Writers:
    """`WORKERS` threads. `rules` are the ACL rules that a write needs."""

    def __init__(self, rules: str) -> None:
        self.pool = ThreadPoolExecutor(WORKERS, "consul")
        self._rules = rules

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def each(self, write: Callable[[str], None], keys: Sequence[str]) -> dict[str, str]:
        """Write all keys concurrently and return the rejected ones. A dead agent ends it."""
        failed = Event()

        def one(key: str) -> str | None:
            try:
                if not failed.is_set():
                    write(key)
            except Refused as error:
                return error.reason or str(error)
            except Unavailable as error:
                if isinstance(error, Denied) and not error.unknown:
                    return f"permission denied: {error}; {self._rules}"
                failed.set()
                raise
            return None

        if len(keys) == 1:
            results = [one(keys[0])]
        else:
            results = []
            for some in chunks(keys, _AT_ONCE):
                futures = [self.pool.submit(one, key) for key in some]
                wait(futures)
                results += [future.result() for future in futures]
        return {key: reason for key, reason in zip(keys, results, strict=True) if reason}
