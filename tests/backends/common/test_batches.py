"""Portions that fit into a transaction: none too heavy or too long, nothing lost or moved."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from registrator.backends.common.batches import batches


@given(st.lists(st.integers(1, 30)), st.integers(1, 5), st.integers(1, 40))
def test_each_fits_and_is_as_large_as_can_be(
    weights: list[int], most_items: int, most_bytes: int
) -> None:
    made = [
        list(batch) for batch in batches(weights, int, most_items=most_items, most_bytes=most_bytes)
    ]
    assert [weight for batch in made for weight in batch] == weights
    for batch in made:
        assert len(batch) <= most_items
        assert sum(batch) <= most_bytes or len(batch) == 1
    for batch, following in pairwise(made):
        assert len(batch) == most_items or sum(batch) + following[0] > most_bytes
