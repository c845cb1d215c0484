"""Portions of a plan that each fit into one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(
    items: Sequence[T], weigh: Callable[[T], int], *, most_items: int, most_bytes: int
) -> Iterator[Sequence[T]]:
    """The items in order; `weigh` gives the bytes that one takes. One too heavy goes alone."""
    start = size = 0
    for position, item in enumerate(items):
        weight = weigh(item)
        full = position - start == most_items or size + weight > most_bytes
        if full and position > start:
            yield items[start:position]
            start, size = position, 0
        size += weight
    if start < len(items):
        yield items[start:]
