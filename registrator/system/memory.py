"""Keeps the process small: it neither loads nor keeps what it does not need."""

import ctypes
import gc
import importlib
import sys
import warnings

# The parameters' numbers in <malloc.h>.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAPPED_FROM = 128 * 1024


def limit_malloc_arenas() -> None:
    """Let all threads share one heap, and map every large block by itself. Call it once, at start.

    Then memory that was needed for a moment goes back to the system. By default each thread has a
    heap, which keeps the listings that the thread has read. Also, the size from which blocks are
    mapped, and so returned, grows with what is freed. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def settle_memory() -> None:
    """Call this once, when all that stays has been made.

    It returns to the system what is free on the heap: imports and the first listings leave 0.5 to
    1.4 MiB. The garbage collector does not look at what stays any more.
    """
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def collect_new_garbage() -> None:
    """Look for garbage among new objects, in less than 0.1 ms.

    Otherwise Python does it whenever 700 objects were made. That may be between an event and its
    write, and took up to 1.5 ms there.
    """
    gc.collect(1)


def import_requests_without_charset_detection() -> None:
    """Import requests, which the libraries use, without charset_normalizer. Call it first.

    That package takes 3 MiB and is never used, since all answers are JSON. Without it requests
    takes text of unnamed encoding for UTF-8, and warns at import.
    """
    detection = "charset_normalizer"
    # The import of a module that is None here fails as if it were not installed.
    sys.modules.setdefault(detection, None)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
        importlib.import_module("requests")
    if sys.modules[detection] is None:
        del sys.modules[detection]
