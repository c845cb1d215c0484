"""Parts of a list fit a transaction: none is too heavy or too long, and nothing is lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from registrator.backends.common.batches import batches


@given(st.lists(st.integers(1, 30)), st.integers(1, 5), st.integers(1, 40))
def test_each_fits_and_is_as_large_as_can_be(
    weights: list[int], max_items: int, max_bytes: int
) -> None:
    made = [
        list(batch) for batch in batches(weights, int, max_items=max_items, max_bytes=max_bytes)
    ]
    assert [weight for batch in made for weight in batch] == weights
    for batch in made:
        assert len(batch) <= max_items
        assert sum(batch) <= max_bytes or len(batch) == 1
    for batch, following in pairwise(made):
        assert len(batch) == max_items or sum(batch) + following[0] > max_bytes
