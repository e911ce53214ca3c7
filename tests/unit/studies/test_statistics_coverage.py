"""A sample of `experiments/statistics/coverage.py`, whose README has the whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import statsmodels.stats.multitest  # noqa: F401  # before the freeze
from scipy import stats

from ftlab.studies.comparisons import compare
from ftlab.studies.intervals import Interval, bootstrap_interval, t_interval
from ftlab.studies.items import over_rows_and_seeds
from tests.unit.studies.tables import table

STUDIES = 1000


@pytest.fixture
def frozen() -> Iterator[None]:
    """statsmodels collects garbage in every correction, which takes long where torch is loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


def coverage(interval: Callable[[Sequence[float]], Interval | None], seeds: int, studies: int = STUDIES) -> float:
    rows = np.random.default_rng(0).normal(3, 2, size=(studies, seeds)).tolist()
    found = [interval(row) for row in rows]
    return float(np.mean([i is not None and i.low <= 3 <= i.high for i in found]))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_t_interval_covers_what_it_says(seeds: int) -> None:
    assert 0.93 <= coverage(t_interval, seeds) <= 0.97


def test_the_bootstrap_covers_less_of_five_seeds_and_enough_of_eight() -> None:
    assert coverage(bootstrap_interval, 5, 500) < coverage(t_interval, 5, 500)
    assert 0.925 <= coverage(bootstrap_interval, 8, 500) <= 0.97


@pytest.mark.usefixtures("frozen")
def test_equal_variants_are_seldom_called_better_or_worse() -> None:
    """Any of six pairs, with what a seed does to all four variants."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        scores = rng.normal(size=(4, 5)) + rng.normal(size=5)
        found = compare(table(dict(zip("abcd", scores.tolist(), strict=True))), "maximize")
        wrong += any(c.verdict != "not significant" for c in found)
    assert wrong <= stats.binom.ppf(0.999, 300, 0.05)  # 28; 70 without Holm's correction


def test_rows_and_seeds_together_are_covered_and_rows_alone_would_not_be() -> None:
    rng = np.random.default_rng(2)
    tables = [rng.normal(size=(5, 1)) * 0.1 + rng.normal(size=(1, 50)) * 0.3 + rng.normal(size=(5, 50)) * 0.4 for _ in range(STUDIES)]
    both = [over_rows_and_seeds(t)[0] for t in tables]
    assert 0.93 <= np.mean([i is not None and i.low <= 0 <= i.high for i in both]) <= 0.97
    pooled = [t_interval(t.ravel().tolist()) for t in tables]
    assert np.mean([i is not None and i.low <= 0 <= i.high for i in pooled]) < 0.8
