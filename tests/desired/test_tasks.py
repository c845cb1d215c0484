"""Hints that come late or doubled, and when a task may be forgotten."""

from __future__ import annotations

import math
from concurrent.futures import Future

import pytest

from registrator.desired.tasks import Hint, Task
from registrator.desired.withdrawn import Kill

START, END = Hint(10), Hint(20, gone=True)


@pytest.mark.parametrize(
    ("first", "later", "holds"),
    [
        (START, None, START),
        (START, END, END),
        (START, Hint(5, gone=True), START),
        (END, Hint(30), Hint(30)),
        (END, START, Hint(20)),
        (Hint(), END, END),
        (END, Hint(), Hint(20)),
        (START, Hint(10, gone=True), Hint(10, gone=True)),
    ],
    ids=[
        "alone",
        "a newer end wins",
        "an older end undoes no start",
        "a newer start wins",
        "an older start after an end: look",
        "an end after a listing",
        "a listing after an end: look",
        "an end in the moment of a start: what was told later wins",
    ],
)
def test_what_holds_after_two_hints(first: Hint, later: Hint | None, holds: Hint) -> None:
    assert first.then(later) == holds


def test_a_task_is_kept_while_there_is_something_to_do() -> None:
    assert Task().is_done
    assert Task(retry_at=math.inf).is_done
    assert not Task(hint=Hint()).is_done
    assert not Task(moved=True).is_done
    assert not Task(kills=(Kill(15, 1, 1),)).is_done
    assert not Task(retry_at=5).is_done
    assert not Task(asked=Future()).is_done
