"""The one policy for a part that can't be had: skip and say which; under CI, fail."""

from __future__ import annotations

import os

import pytest


def require(part: str, present: object, how: str) -> None:
    """Skip the test that needs `part` where it is not `present`; with ``CI`` not empty, fail it.

    `how` says how to get it.
    """
    if present:
        return
    reason = f"missing part: {part} ({how})"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; nothing is skipped with CI set", pytrace=False)
    pytest.skip(reason)
