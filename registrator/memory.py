"""Hand back what was needed for a moment: glibc's allocator keeps it, and so the process grows."""

from __future__ import annotations

import ctypes

# The parameters' numbers in <malloc.h>.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAPPED_FROM = 128 * 1024


def keep_little() -> None:
    """Let threads share one heap, and give every large block memory of its own; once, at start.

    By default each thread has a heap, which keeps the listings that it read, and the size from
    which a block is mapped, and so returned, grows with what is freed. There is nothing to
    set where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
