"""The scene in which every reader is watched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.agent import Agent
from support.engine import Dockerd

from readers.following import Scene


@pytest.fixture
def scene(clean_engine: Dockerd, agent: Callable[..., Agent]) -> Scene:
    """No instance runs yet."""
    return Scene(clean_engine, agent)
