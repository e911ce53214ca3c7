"""Shares of masked, random and kept tokens, over a million tokens, beside those of transformers."""

from __future__ import annotations

from tests.reference.mlm_rates import LENGTH, ours, outside, theirs

ROWS = 8000


def test_shares_lie_in_their_binomial_intervals() -> None:
    assert ROWS * LENGTH == 1_000_000
    found = ours(ROWS)
    assert outside(found) == []
    assert found.mask + found.other + found.same == found.scored
    assert outside(theirs(ROWS)) == []


def test_another_epoch_has_other_masks_of_the_same_shares() -> None:
    first, second = ours(800), ours(800, epoch=1)
    assert first != second
    assert outside(second) == []
