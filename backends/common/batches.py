"""Long lists in parts: as many items as fit one transaction, or a fixed number."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(
    items: Sequence[T], weigh: Callable[[T], int], *, max_items: int, max_bytes: int
) -> Iterator[Sequence[T]]:
    """The items in order, in parts that fit a transaction.

    `weigh` gives the bytes of one item. An item that is too heavy makes a part of its own.
    """
    start = size = 0
    for position, item in enumerate(items):
        weight = weigh(item)
        full = position - start == max_items or size + weight > max_bytes
        if full and position > start:
            yield items[start:position]
            start, size = position, 0
        size += weight
    if start < len(items):
        yield items[start:]


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
