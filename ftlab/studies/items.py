"""Two variants compared over the rows of a test set, where their runs kept predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import DataError
from ftlab.studies.comparisons import Verdict, holm, verdict
from ftlab.studies.intervals import ALPHA, LEVEL, Interval, constant
from ftlab.studies.statistics import Direction

Scores = Mapping[int, float]
"""Row → score of a run: 1 or 0 for right or wrong, or any number such as a loss."""
_RESAMPLES = 9999
_BATCH = 128
"""Resamples that are held at once: 10,000 rows take 10 MB."""
_STILL = "Not tested: one row, or one difference that is the same in every row with every seed, has no noise to test it against."


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Rows on which one of two runs is right and the other is wrong.

    Args:
        both: Rows that both have right.
        only_one: Rows that only the first has right.
        only_other: Rows that only the second has right.
        neither: Rows that both have wrong.
        p: Exact, two-sided (McNemar 1947): of a binomial with half a chance for each row on which they differ.
        p_holm: Corrected for the seeds that were tested together.
    """

    both: int
    only_one: int
    only_other: int
    neither: int
    p: float
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ItemComparison:
    """One variant minus another over common rows and seeds.

    Args:
        seeds: In common.
        rows: How many in common.
        difference: Mean of one - other.
        over_rows: Interval for other rows and these very runs, by the paired bootstrap.
        p_rows: The same by the exchange of the two variants within rows; of one seed and right or wrong it is McNemar's question.
        over_both: Interval for other rows and other seeds; None of one seed or one row.
        p_both: Its test; also None where every row differs alike with every seed, so that there is no noise to test against.
        mcnemar: Seed → test, where all scores are 0 or 1; the seeds share their rows, so they are not added up.
        p: That of the two which the verdict is from: `p_rows` of one seed, else `p_both`, since rows do not speak for other seeds.
        verdict: From `p`.
        notes: Sentences to print beside it.
    """

    seeds: tuple[int, ...]
    rows: int
    difference: float
    over_rows: Interval
    p_rows: float
    over_both: Interval | None
    p_both: float | None
    mcnemar: Mapping[int, McNemar]
    p: float | None
    verdict: Verdict
    notes: tuple[str, ...]


def mcnemar(one: Scores, other: Scores) -> McNemar:
    """Whether two runs are right on different numbers of rows, exactly.

    Args:
        one: Row → 1 or 0.
        other: The same rows.

    Raises:
        DataError: There is no common row, or a score is neither 1 nor 0.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    rows = _common([one, other])
    pairs = [(one[row], other[row]) for row in rows]
    if not all(_binary(pair) for pair in pairs):
        raise DataError("McNemar's test needs rows that are right or wrong (1 or 0); compare other scores with compare_items.")
    table = [[pairs.count((a, b)) for b in (1, 0)] for a in (1, 0)]
    (both, only_one), (only_other, neither) = table
    p = float(test(table, exact=True).pvalue)
    return McNemar(both=both, only_one=only_one, only_other=only_other, neither=neither, p=p)


def compare_items(one: Mapping[int, Scores], other: Mapping[int, Scores], direction: Direction) -> ItemComparison:
    """Compare two variants row by row; a row's score is its mean over the common seeds, since seeds do not make new rows.

    Args:
        one: Seed → row → score.
        other: The same for the other variant.
        direction: Of the score.

    Raises:
        DataError: There is no common seed or row.
    """
    seeds = tuple(sorted(one.keys() & other.keys()))
    if not seeds:
        raise DataError("the two variants have no seed in common whose predictions were kept; run predict for the same seeds of both.")
    runs = [variant[seed] for seed in seeds for variant in (one, other)]
    rows = _common(runs)
    differences = np.array([[one[seed][row] - other[seed][row] for row in rows] for seed in seeds], dtype=np.float64)
    tests = _mcnemar_per_seed(one, other, seeds, rows)
    over_rows, p_rows = _over_rows(differences.mean(0))
    over_both, p_both = over_rows_and_seeds(differences, max(abs(run[row]) for run in runs for row in rows))
    difference = float(differences.mean())
    p = p_rows if len(seeds) == 1 else p_both
    return ItemComparison(
        seeds=seeds,
        rows=len(rows),
        difference=difference,
        over_rows=over_rows,
        p_rows=p_rows,
        over_both=over_both,
        p_both=p_both,
        mcnemar=tests,
        p=p,
        verdict=verdict(p, difference, direction),
        notes=(*_notes(one, other, runs, seeds, len(rows)), *([_STILL] if p is None else [])),
    )


def over_rows_and_seeds(differences: NDArray[np.float64], scale: float | None = None) -> tuple[Interval | None, float | None]:
    """Interval and p of a mean over a table of seeds × rows, both taken at random; (None, None) for one seed or one row.

    Where all of the table is one number but for rounding, the interval has no width, and p is None unless that number is 0.

    Variance of the mean: (MS_seeds + MS_rows - MS_rest) / (seeds · rows), the crossed random-effects model of Cornfield and Tukey (1956),
    no component below zero, with the degrees of freedom of Satterthwaite (1946).

    Args:
        differences: (seeds, rows).
        scale: The greatest of the numbers that they are differences of, whose rounding they have; None for their own.
    """
    seeds, rows = differences.shape
    if seeds < 2 or rows < 2:
        return None, None
    from scipy import stats

    mean = float(differences.mean())
    values, scales = differences.ravel().tolist(), None if scale is None else [scale]
    if constant(values, scales):
        return Interval(mean, mean, "t"), 1.0 if constant([0.0, *values], scales) else None
    by_seed, by_row = differences.mean(1), differences.mean(0)
    rest = differences - by_seed[:, None] - by_row[None, :] + mean
    ms_seeds, ms_rows = rows * float(by_seed.var(ddof=1)), seeds * float(by_row.var(ddof=1))
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    parts = [(max(ms_seeds, ms_rest), seeds - 1), (max(ms_rows, ms_rest), rows - 1), (-ms_rest, (seeds - 1) * (rows - 1))]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(total / differences.size)
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    return Interval(mean - half, mean + half, "t"), float(2 * stats.t.sf(abs(mean) / error, freedom))


def _over_rows(values: NDArray[np.float64]) -> tuple[Interval, float]:
    """Percentile bootstrap, and the test that exchanges the variants within rows, over one difference per row."""
    from scipy import stats

    if len(values) < 2:
        return Interval(float(values[0]), float(values[0]), "bootstrap"), 1.0
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    test = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(0),
    )
    return Interval(float(found.low), float(found.high), "bootstrap"), float(test.pvalue)


def _mcnemar_per_seed(
    one: Mapping[int, Scores], other: Mapping[int, Scores], seeds: Sequence[int], rows: Sequence[int]
) -> dict[int, McNemar]:
    if not all(_binary((one[seed][row], other[seed][row])) for seed in seeds for row in rows):
        return {}
    tests = [mcnemar({r: one[seed][r] for r in rows}, {r: other[seed][r] for r in rows}) for seed in seeds]
    corrected = holm([test.p for test in tests])
    return {
        seed: McNemar(both=t.both, only_one=t.only_one, only_other=t.only_other, neither=t.neither, p=t.p, p_holm=p)
        for seed, t, p in zip(seeds, tests, corrected, strict=True)
    }


def _notes(one: Mapping[int, Scores], other: Mapping[int, Scores], runs: Sequence[Scores], seeds: Sequence[int], rows: int) -> list[str]:
    notes = []
    alone = sorted(one.keys() ^ other.keys())
    if alone:
        notes.append(f"Seeds {', '.join(map(str, alone))} kept predictions of one variant only and are left out.")
    most = len(set().union(*runs))
    if rows < most:
        notes.append(f"{most - rows} of {most} rows are not scored in every run and are left out.")
    if len(seeds) == 1:
        notes.append("One run of each: what holds for other rows need not hold for other seeds.")
    return notes


def _common(runs: Sequence[Scores]) -> list[int]:
    rows = sorted(set(runs[0]).intersection(*runs[1:]))
    if not rows:
        raise DataError("the runs have no row in common; predict the same split with both.")
    return rows


def _binary(values: Iterable[float]) -> bool:
    return all(value in (0, 1) for value in values)
