"""The results of the operator's templates for one container."""

from typing import NamedTuple


class Derived(NamedTuple):
    """The tags of ``-tags`` and the name of ``-name``. An error is empty if there is none."""

    tags: tuple[str, ...] = ()
    name: str = ""
    tags_error: str = ""
    name_error: str = ""


NOTHING_DERIVED = Derived()
