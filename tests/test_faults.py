"""A short set of the fault campaigns; ``make faults`` and ``make soak`` run as long as asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.campaign import Campaign
from faults.schedule import SECONDS, schedule
from faults.worlds import WORLDS

# The first few, and every one that ever diverged.
SEEDS = {"consul": [0, 1, 2], "etcd": [0, 1, 2], "zookeeper": [0, 1, 2, 22]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("registry", sorted(WORLDS))
def test_engine_and_registry_agree_after_faults(registry: str, tmp_path: Path) -> None:
    with Campaign.of(registry, tmp_path) as campaign:
        for seed in SEEDS[registry]:
            campaign.run(seed)
        assert "Traceback" not in campaign.agent.log


def test_a_seed_always_gives_the_same_faults() -> None:
    targets = {"member 0": ("kill", "freeze"), "cluster": ("wipe",), "engine": ("kill",)}
    assert schedule(7, targets) == schedule(7, targets)
    assert schedule(7, targets) != schedule(8, targets)
    for seed in range(200):
        faults = schedule(seed, targets)
        assert faults
        for fault in faults:
            assert fault.start + fault.seconds <= SECONDS
            others = [f for f in faults if f.target == fault.target and f is not fault]
            assert all(
                f.start >= fault.start + fault.seconds or f.start + f.seconds <= fault.start
                for f in others
            )
