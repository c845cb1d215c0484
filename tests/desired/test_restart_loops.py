"""When the starts of a container count as a restart loop."""

from __future__ import annotations

from registrator.desired.restart_loops import LOOP_SECONDS, LOOP_STARTS, SETTLE, RestartLoop


def loop_of(*starts: tuple[float, float]) -> RestartLoop:
    """The starts of a container, by the engine's clock and by ours."""
    made = RestartLoop()
    for time, told in starts:
        made.started(time, told)
    return made


def test_many_starts_in_a_short_time_are_a_loop() -> None:
    starts = [(1000.0 + second, float(second)) for second in range(LOOP_STARTS)]
    assert loop_of(*starts[1:]).calm_at(LOOP_STARTS) == 0
    assert loop_of(*starts).calm_at(LOOP_STARTS) == LOOP_STARTS - 1 + SETTLE


def test_starts_that_are_long_ago_do_not_count() -> None:
    loop = loop_of(*[(1000.0 + second, float(second)) for second in range(LOOP_STARTS)])
    assert loop.calm_at(LOOP_SECONDS) == 0
    assert not loop.forget(LOOP_SECONDS)
    assert loop.forget(LOOP_SECONDS + LOOP_STARTS)


def test_starts_that_are_told_at_once_but_were_apart_are_no_loop() -> None:
    assert loop_of(*[(60.0 * minute, 5.0) for minute in range(9)]).calm_at(5) == 0
    assert loop_of(*[(60.0, 5.0)] * LOOP_STARTS).calm_at(5) == 5 + SETTLE


def test_a_container_without_starts_is_in_no_loop() -> None:
    assert RestartLoop().calm_at(0) == 0
    assert RestartLoop().forget(0)


def test_the_exact_limits() -> None:
    """Four starts within ten seconds, as docs/run.md says. Ten seconds apart are not within ten."""
    assert (LOOP_STARTS, LOOP_SECONDS, SETTLE) == (4, 10.0, 1.0)
    assert loop_of(*[(1000.0, 5.0)] * 3, (1009.9, 5)).calm_at(5) == 5 + SETTLE
    assert loop_of(*[(1000.0, 5.0)] * 3, (1010.0, 5)).calm_at(5) == 0
