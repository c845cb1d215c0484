"""Keeps the process small: it neither loads nor keeps what it does not need."""

import ctypes
import gc
import importlib
import sys
import warnings
from types import ModuleType

# The parameters' numbers in <malloc.h>.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MAPPED_FROM = 128 * 1024

_OF_ITS_SERVER = ("http.server", "socketserver", "wsgiref.simple_server")


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


class _Placeholder(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        return type(name, (), {})


def import_prometheus_client_without_its_server() -> None:
    """Import prometheus_client without the modules of its HTTP server. Call it first.

    They take 1.1 MiB, most of it for the names of HTML's characters. Nobody starts that server.
    Whatever imports one of these modules later gets the real one.
    """
    missing = [name for name in _OF_ITS_SERVER if name not in sys.modules]
    sys.modules.update((name, _Placeholder(name)) for name in missing)
    try:
        importlib.import_module("prometheus_client")
    finally:
        for name in missing:
            del sys.modules[name]
