"""The watch finds each wrong answer of a reader, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from support.wait import until

from readers.following import Reader, Watch

A, B, C, OTHER = "ip:1", "ip:2", "ip:3", "ip:9"


class Told(Reader):
    """A reader that shows what a test says."""

    def __init__(self, shown: set[str] | None) -> None:
        self.shown = shown

    def addresses(self) -> set[str]:
        if self.shown is None:
            raise ConnectionRefusedError
        return self.shown


@pytest.fixture
def reader() -> Told:
    return Told(None)


@pytest.fixture
def watch(reader: Told) -> Iterator[Watch]:
    made = Watch(reader, {A})
    made.start()
    yield made
    made.stop()


def show(reader: Told, watch: Watch, shown: set[str] | None) -> None:
    """Have the watch see this for a while."""
    looks = watch.looks
    reader.shown = shown
    until(lambda: watch.looks > looks + 1, "two looks")


def test_a_reader_may_start_as_it_likes(reader: Told, watch: Watch) -> None:
    for shown in (None, set(), {OTHER}, {A}):
        show(reader, watch, shown)
    watch.stay(0)
    assert watch.wait() > 0


@pytest.mark.parametrize("shown", [None, set(), {OTHER}, {A, OTHER}])
def test_nothing_else_is_right_while_nothing_changes(
    reader: Told, watch: Watch, shown: set[str] | None
) -> None:
    show(reader, watch, {A})
    show(reader, watch, shown)
    show(reader, watch, {A})
    with pytest.raises(AssertionError, match=r"\['ip:1'\] of Told"):
        watch.stay(0)


def test_a_change_may_show_in_parts(reader: Told, watch: Watch) -> None:
    steps: Sequence[tuple[set[str], Sequence[set[str]]]] = (
        ({A, B, C}, ({A}, {A, B}, {A, C}, {A, B, C})),
        ({B}, ({A, B, C}, {B, C}, {B})),
        (set(), ({B}, set())),
    )
    show(reader, watch, {A})
    for want, seen in steps:
        watch.change(want)
        for shown in seen:
            show(reader, watch, shown)
        watch.wait()


@pytest.mark.parametrize("shown", [None, {B}, {A, B, C, OTHER}])
def test_a_change_concerns_no_other_instance(
    reader: Told, watch: Watch, shown: set[str] | None
) -> None:
    show(reader, watch, {A})
    watch.change({A, B, C})
    show(reader, watch, shown)
    show(reader, watch, {A, B, C})
    with pytest.raises(AssertionError, match=r"which shows"):
        watch.wait()


def test_what_was_right_must_stay_right(reader: Told, watch: Watch) -> None:
    show(reader, watch, {A})
    watch.change({A, B})
    show(reader, watch, {A, B})
    watch.wait()
    show(reader, watch, {A})
    with pytest.raises(AssertionError):
        watch.check()


def test_a_reader_may_be_given_time_until_it_is_steady(reader: Told, watch: Watch) -> None:
    show(reader, watch, {A})
    reader.steady = 3600.0
    watch.change({A, B})
    for shown in ({A, B}, {A}, {A, B}):
        show(reader, watch, shown)
    reader.steady = 0.0
    watch.wait()
    show(reader, watch, {A})
    assert watch.wrong
