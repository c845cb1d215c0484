"""A short set of the fault campaigns. ``make faults`` and ``make soak`` run as long as asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.__main__ import run
from faults.campaign import Campaign, Divergence, Late
from faults.schedule import SECONDS, schedule
from faults.usage import Usage, flat
from faults.watched import within
from faults.worlds import WORLDS

# The first few, and every one that ever diverged.
SEEDS = {
    "consul": [0, 1, 2, 105],
    "consulkv": [0, 1, 2],
    "etcd": [0, 1, 2],
    "zookeeper": [0, 1, 2, 22, 23, 24],
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("registry", sorted(WORLDS))
def test_engine_and_registry_agree_after_faults(registry: str, tmp_path: Path) -> None:
    with Campaign.of(registry, tmp_path) as campaign:
        for seed in SEEDS[registry]:
            # A busy machine may be late.
            with contextlib.suppress(Late):
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


class Scripted:
    """A campaign in which seed 1 diverges."""

    def __init__(self) -> None:
        self.world = self
        self.name = "scripted"

    def run(self, seed: int) -> float:
        if seed == 1:
            raise Divergence("the story of seed 1")
        if seed == 3:
            raise Late(7.5, "the story of seed 3")
        return seed / 2

    def usage(self) -> Usage:
        return Usage(30.0, 11, 7)


def test_what_a_campaign_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert not run(Scripted(), 0, 4, None)  # type: ignore[arg-type]
    printed = capsys.readouterr().out.splitlines()
    assert printed[:8] == [
        "scripted: 4 seeds, from seed 0 on",
        "  seed  agreed after     memory  files  threads",
        "     0         0.0 s   30.0 MiB     11        7",
        "the story of seed 1",
        "     1      DIVERGED   30.0 MiB     11        7",
        "     2         1.0 s   30.0 MiB     11        7",
        "the story of seed 3",
        "     3    7.5 s LATE   30.0 MiB     11        7",
    ]
    assert printed[8].endswith("seeds 1 diverged, 1 late; agreed after 7.5 s at most")


@pytest.mark.parametrize(
    ("leak", "level"),
    [((0, 0, 0), True), ((0.03, 0, 0), True), ((0.1, 0, 0), False), ((0, 0.1, 0), False),
     ((0, 0, 0.1), False)],
)  # fmt: skip
def test_a_leak_is_not_level(leak: tuple[float, float, float], level: bool) -> None:
    """It grows with every seed. Memory that a connection takes for a while is no leak."""

    def usage(seed: int) -> Usage:
        memory, files, threads = (int(10 * seed * each) / 10 for each in leak)
        return Usage(30 + memory, int(11 + files + seed % 5), int(7 + threads))

    assert flat([(float(seed), usage(seed)) for seed in range(60)], 60) is level


@pytest.mark.parametrize(
    ("more", "fine"),
    [
        (lambda _: 1.9, True),
        (lambda minute: 2.1 if minute == 9 else 1.0, False),
        (lambda minute: 1.0 + 0.01 * minute, True),
        (lambda minute: 1.0 + 0.016 * minute, False),
    ],
    ids=["flat", "too much for a moment", "almost flat", "grows"],
)
def test_what_watching_adds_is_bounded_and_flat(more: Callable[[int], float], fine: bool) -> None:
    usages = [(float(minute), Usage(50.0, 20, 10)) for minute in range(61)]
    added = [(float(minute), more(minute)) for minute in range(61)]
    assert within(usages, added) is fine
