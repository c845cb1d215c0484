"""The one policy for a part that can't be had: skip and say which; under CI, fail."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


class Missing(Exception):
    """A part that the tests need is not on this machine; its text names the part."""


def missing(part: str) -> NoReturn:
    """Skip the test and name the part; with ``CI`` set and not empty, fail it."""
    reason = f"missing part: {part}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; nothing is skipped with CI set", pytrace=False)
    pytest.skip(reason)
