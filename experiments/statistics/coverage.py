"""Whether the statistics of studies keep what they promise, by simulated studies: python experiments/statistics/coverage.py.

Prints the tables of README.md. All draws have fixed seeds: the same versions of NumPy and SciPy print the same numbers.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import statsmodels.stats.multitest  # noqa: F401  # before the freeze
from numpy.typing import NDArray
from scipy import stats

from ftlab.studies.comparisons import Test, compare
from ftlab.studies.effects import interactions, main_effects
from ftlab.studies.intervals import Interval, bootstrap_interval, t_interval
from ftlab.studies.items import over_rows_and_seeds
from ftlab.studies.ranks import rank
from ftlab.studies.records import TrialRecord

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Values]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, size=shape),
    "skewed": lambda rng, shape: np.exp(0.5 * rng.normal(size=shape)) - np.exp(0.125),
    "very skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "one in ten diverges": lambda rng, shape: rng.normal(size=shape) + 10 * ((rng.random(shape) < 0.1) - 0.1),
}
"""Scores with mean 0: skewed is log-normal (skewness 1.75), very skewed exponential (2)."""


def covered(intervals: Iterator[Interval | None], truth: float = 0.0) -> float:
    """Share of intervals that hold the true mean."""
    return float(np.mean([found is not None and found.low <= truth <= found.high for found in intervals]))


def coverage(interval: Callable[[Sequence[float]], Interval | None], draw: Draw, seeds: int, studies: int) -> float:
    """Share of simulated variants whose interval holds the true mean."""
    table = draw(np.random.default_rng(seeds), (studies, seeds))
    return covered(interval(row) for row in table.tolist())


def simple(method: str) -> Callable[[Sequence[float]], Interval | None]:
    """SciPy's bootstrap as it is, at 95 %."""

    def interval(values: Sequence[float]) -> Interval:
        found = stats.bootstrap((values,), np.mean, method=method, rng=np.random.default_rng(0)).confidence_interval
        return Interval(float(found.low), float(found.high), "bootstrap")

    return interval


def study(table: Values, levels: Sequence[dict[str, str]] | None = None) -> list[TrialRecord]:
    """Records of (variants, seeds) scores."""
    return [
        TrialRecord(
            key=f"{v}-{s}", variant=f"v{v}", levels=levels[v] if levels else {}, phase="seeds", seed=s, state="complete", value=float(value)
        )
        for v, row in enumerate(table)
        for s, value in enumerate(row)
    ]


def null(rng: np.random.Generator, draw: Draw, variants: int, seeds: int, spread: Sequence[float]) -> Values:
    """Scores of variants that are equal in the mean, with noise of their own and what each seed does to all of them."""
    own = draw(rng, (variants, seeds)) * np.asarray(spread)[:, None]
    return own + rng.normal(size=(1, seeds))


def false_positives(draw: Draw, variants: int, studies: int, test: Test = "t", seeds: int = 5, unequal: bool = False) -> float:
    """Share of studies of equal variants in which any pair is called better or worse."""
    rng = np.random.default_rng(variants)
    spread = [2.0 ** (unequal * v) for v in range(variants)]
    tables = (null(rng, draw, variants, seeds, spread) for _ in range(studies))
    return float(np.mean([any(c.verdict in ("better", "worse") for c in compare(study(t), "minimize", test=test)) for t in tables]))


def row_coverage(seeds: int, rows: int, studies: int, seed_sd: float) -> tuple[float, float]:
    """Coverage of `over_both`, and of a t interval over seeds × rows as if all were rows of their own."""
    rng = np.random.default_rng(rows)
    tables = [
        rng.normal(size=(seeds, 1)) * seed_sd + rng.normal(size=(1, rows)) * 0.3 + rng.normal(size=(seeds, rows)) * 0.4
        for _ in range(studies)
    ]
    return covered(over_rows_and_seeds(t)[0] for t in tables), covered(t_interval(t.ravel().tolist()) for t in tables)


def anova_positives(studies: int, unequal: bool) -> list[float]:
    """Share of studies of 3 × 2 equal variants with p < 0.05: the main effect of 3 levels, the interaction, and both without epsilon."""
    rng = np.random.default_rng(6)
    levels = [{"one": a, "two": b} for a in "abc" for b in "xy"]
    spread = [1.0, 1.0, 1.0, 1.0, 3.0, 3.0] if unequal else [1.0] * 6
    found = [study(null(rng, DRAWS["normal"], 6, 5, spread), levels) for _ in range(studies)]
    tests = [(main_effects(records)[0].anova, interactions(records)[0].anova) for records in found]
    mine = [[a is not None and a.p < 0.05 for a in pair] for pair in tests]
    plain = [[a is not None and stats.f.sf(a.f, a.between, a.within) < 0.05 for a in pair] for pair in tests]
    return [*np.mean(mine, axis=0).tolist(), *np.mean(plain, axis=0).tolist()]


def rank_positives(datasets: int, methods: int, studies: int) -> float:
    """Share of rankings of equal methods that find a difference."""
    rng = np.random.default_rng(datasets)
    scores = ({f"d{i}": {f"m{j}": float(v) for j, v in enumerate(row)} for i, row in enumerate(rng.normal(size=(datasets, methods)))}
              for _ in range(studies))  # fmt: skip
    return float(np.mean([bool(rank(s, "minimize").different) for s in scores]))


def table(title: str, head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    """Print Markdown, a row as soon as it is known."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print("| " + " | ".join(f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    count = parser.parse_args().studies
    gc.freeze()  # statsmodels collects garbage in every correction
    sizes = (3, 5, 6, 8, 10, 20)
    table(
        "Coverage of the t interval, %",
        ["scores", *(f"{n} seeds" for n in sizes)],
        ([name, *(coverage(t_interval, draw, n, count) for n in sizes)] for name, draw in DRAWS.items()),
    )
    table(
        "Coverage of the bootstrap interval, %",
        ["scores", *(f"{n} seeds" for n in sizes[1:])],
        ([name, *(coverage(bootstrap_interval, draw, n, count) for n in sizes[1:])] for name, draw in DRAWS.items()),
    )
    table(
        "SciPy's bootstrap at 95 % as it is, normal scores, %",
        ["method", *(f"{n} seeds" for n in sizes[1:])],
        ([m, *(coverage(simple(m), DRAWS["normal"], n, count) for n in sizes[1:])] for m in ("percentile", "BCa")),
    )
    table(
        "Studies of equal variants in which any pair is called better or worse, 5 seeds, %",
        ["scores", "2 variants", "4 variants (6 pairs)", "4, standard deviations 1, 2, 4, 8"],
        (
            [name, false_positives(d, 2, count), false_positives(d, 4, count), false_positives(d, 4, count, unequal=True)]
            for name, d in DRAWS.items()
        ),
    )
    table(
        "The same by Wilcoxon's test, normal scores, 2 variants, %",
        ["5 seeds", "6 seeds", "10 seeds"],
        iter([[false_positives(DRAWS["normal"], 2, count, "wilcoxon", n) for n in (5, 6, 10)]]),
    )
    table(
        "Coverage over rows and seeds, 5 seeds × 200 rows, %",
        ["standard deviation of seeds", "over_both", "all seeds' rows as rows of their own"],
        ([str(sd), *row_coverage(5, 200, count, sd)] for sd in (0.0, 0.02, 0.1)),
    )
    table(
        "ANOVA of 3 × 2 equal variants, 5 seeds: p < 0.05, %",
        ["standard deviations", "main effect of 3 levels", "interaction", "main effect without ε", "interaction without ε"],
        ([name, *anova_positives(count, unequal)] for name, unequal in (("all 1", False), ("1, 1, 3", True))),
    )
    table(
        "Friedman and Nemenyi, equal methods: any difference found, %",
        ["5 data sets", "10 data sets", "20 data sets"],
        iter([[rank_positives(n, 5, count) for n in (5, 10, 20)]]),
    )


if __name__ == "__main__":
    main()
