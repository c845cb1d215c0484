"""The engine uses the image store that is asked for. ``make compatibility`` runs this file."""

from __future__ import annotations

import os

from support.engine import Dockerd


def test_the_engine_uses_the_store_that_is_asked_for(engine: Dockerd) -> None:
    told = dict(engine.api.request("GET", "/info")["DriverStatus"])
    wanted = os.environ["TEST_IMAGE_STORE"]
    assert wanted in ("classic", "containerd")
    assert ("containerd" in told.get("driver-type", "")) is (wanted == "containerd")
