"""What the process does not need, it neither loads nor keeps."""

from __future__ import annotations

import ctypes
import importlib
import sys
import warnings

# The parameters' numbers in <malloc.h>.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAPPED_FROM = 128 * 1024


def keep_little() -> None:
    """Let threads share one heap, and give every large block memory of its own; once, at start.

    What was needed for a moment is handed back then. By default each thread has a heap, which
    keeps the listings that it read, and the size from which a block is mapped, and so returned,
    grows with what is freed. There is nothing to set where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def load_little() -> None:
    """Load requests, which the libraries build on, without its guessing of encodings; once, first.

    What guesses takes 3 MiB and 25 ms, and is never asked: all answers are JSON. Without it
    requests works, takes any other text for UTF-8, and warns of that.
    """
    guessing = "charset_normalizer"
    # An import of what is None here fails as if it were not installed (Python's reference).
    sys.modules.setdefault(guessing, None)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
        importlib.import_module("requests")
    if sys.modules[guessing] is None:
        del sys.modules[guessing]
