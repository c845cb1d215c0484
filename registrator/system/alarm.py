"""A timer of the kernel. To set it wakes nobody. When it goes off, it wakes one thread."""

import ctypes
import os

# These calls are quick. `PyDLL` makes them without letting another thread run.
_LIBC = ctypes.PyDLL(None, use_errno=True)

_CLOCK_MONOTONIC = 1


class _Times(ctypes.Structure):
    """``struct itimerspec``: the interval, and the time until it goes off."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "s", "ns")]


class Alarm:
    """One alarm. Any thread may call each method."""

    def __init__(self) -> None:
        self._file = _LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "no timer")

    def set(self, seconds: float) -> None:
        """Have it go off once, so many seconds from now. 0 sets it off at no time."""
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        times = ctypes.byref(_Times(0, 0, whole, rest))
        if _LIBC.timerfd_settime(self._file, 0, times, None):
            raise OSError(ctypes.get_errno(), "the timer cannot be set")

    def wait(self) -> None:
        """Wait until it goes off. Of several threads that wait, one wakes up."""
        os.read(self._file, 8)

    def close(self) -> None:
        """Close it. Nobody may wait for it any more."""
        os.close(self._file)
