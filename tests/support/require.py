"""The one policy for a part that can't be had: skip and say which, or fail under CI.

A part is a server, a program of the system, or root. Every test that takes one asks for it here,
so `make unit` runs what asks for none: it sets `no_parts`, and each request skips its test.
"""

from __future__ import annotations

import os

import pytest

no_parts = False


def require(part: str, present: object, how: str) -> None:
    """Skip the test that needs `part` where it is not `present`. With ``CI`` not empty, fail it.

    `how` says how to get it. With `no_parts` the test is skipped in any case.
    """
    if no_parts:
        pytest.skip(f"only `make test` runs what needs {part}")
    if present:
        return
    reason = f"missing part: {part} ({how})"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; nothing is skipped with CI set", pytrace=False)
    pytest.skip(reason)
