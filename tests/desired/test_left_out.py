"""The log lines about ports that are not registered."""

from __future__ import annotations

import logging

from support.fakes import container

from registrator.desired.left_out import lines
from registrator.model import LeftOut, Port, Reason


def unpublished(count: int) -> str:
    """The line about so many ports that are not published."""
    ports = [LeftOut(Port(number, "tcp"), Reason.NOT_PUBLISHED) for number in range(1, count + 1)]
    ((level, text, _),) = lines(container("a"), ports)
    assert level == logging.DEBUG, "it is somebody's will"
    return text.removeprefix("container a (a00000000000): not registered: ")


def test_a_line_names_twenty_ports_and_counts_the_others() -> None:
    twenty = ", ".join(f"{number}/tcp" for number in range(1, 21))
    assert unpublished(1) == "1/tcp: it is not published"
    assert unpublished(20) == f"{twenty}: it is not published"
    assert unpublished(21) == f"{twenty} and 1 more: it is not published"
    assert unpublished(65535) == f"{twenty} and 65515 more: it is not published"
