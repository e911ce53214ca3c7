"""Intervals over seeds; SciPy is imported only where one is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftlab.errors import ConfigError

Kind = Literal["t", "bootstrap"]
CALLED: dict[Kind, str] = {"t": "Student's t", "bootstrap": "the bootstrap"}
"""What an interval is by, within a sentence."""

LEVEL = 0.95
ALPHA = 1 - LEVEL
LEAST: dict[Kind, int] = {"t": 2, "bootstrap": 8}
"""Seeds from which an interval covers 93 to 97 % of normal scores, see `experiments/statistics/README.md`."""
_SHOWN = 5
"""Seeds from which a bootstrap interval is given at all: whatever is resampled stays between the least and the greatest of n values,
and that range misses the centre of a symmetric distribution in 2 of 2**n samples, more than 1 in 10 where n is below 5."""
_RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """Where 95 of 100 such intervals hold the true value.

    Args:
        low: Lower end.
        high: Upper end.
        kind: What it was computed by.
    """

    low: float
    high: float
    kind: Kind


def check_seeds(interval: Kind, seeds: int) -> None:
    """Refuse an interval that was asked for and cannot be had.

    Args:
        interval: The user's choice.
        seeds: How many different seeds the study has.

    Raises:
        ConfigError: There are fewer than it needs.
    """
    if seeds < LEAST[interval]:
        other = f", or choose t, which needs {LEAST['t']}" if LEAST["t"] <= seeds else ""
        needs = f"which needs at least {LEAST[interval]} different seeds, and the study has {seeds}"
        raise ConfigError(f"--interval is {interval}, {needs}; add seeds{other}.")


def interval_of(values: Sequence[float], kind: Kind) -> Interval | None:
    """Of the mean; None for too few values."""
    return t_interval(values) if kind == "t" else bootstrap_interval(values)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Of the mean, by Student's t (1908): mean ± t(0.975, n - 1) · s / √n; None for fewer than two values.

    Args:
        values: One per seed.
    """
    if len(values) < LEAST["t"]:
        return None
    from scipy import stats

    mean, error = float(np.mean(values)), float(stats.sem(values))
    if constant(values):
        return Interval(mean, mean, "t")  # SciPy has no t of scale 0
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return Interval(float(low), float(high), "t")


def bootstrap_interval(values: Sequence[float]) -> Interval | None:
    """Of the mean, by resampling: Efron's percentiles at the wider level of Hesterberg; None for fewer than five values.

    Plain percentiles are too narrow by √((n - 1) / n) and by the normal's quantile in the place of t's: of five seeds they cover 84 %.
    Hesterberg (2015, "What Teachers Should Know about the Bootstrap", expanded percentile interval) takes them at
    Φ(-t(0.975, n - 1) · √(n / (n - 1))) instead of 0.025. The draws are fixed: the same values give the same interval.

    Args:
        values: One per seed.
    """
    count = len(values)
    if count < _SHOWN:
        return None
    from scipy import stats

    tail = float(stats.norm.cdf(stats.t.ppf(ALPHA / 2, count - 1) * math.sqrt(count / (count - 1))))
    found = stats.bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(found.high), "bootstrap")


def constant(values: Sequence[float], scale: Sequence[float] | None = None) -> bool:
    """Whether the values are equal but for rounding, so that there is nothing to measure a deviation from.

    Args:
        values: At least one.
        scale: The numbers that they are differences of, whose rounding they have.
    """
    return max(values) - min(values) <= 64 * math.ulp(max(abs(v) for v in scale or values))
