"""Variants compared over the same seeds: difference, interval, test, effect size, and a verdict that holds for all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from ftlab.errors import ConfigError, suggest
from ftlab.studies.intervals import ALPHA, LEAST, Interval, constant, t_interval
from ftlab.studies.records import TrialRecord
from ftlab.studies.statistics import Direction, scores_of

Test = Literal["t", "wilcoxon"]
Verdict = Literal["better", "worse", "not significant", "not tested"]
"""`not tested` is said where too few seeds are common, or where all have the same difference, so that there is no noise to test against."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One variant minus another, seed by seed.

    Args:
        one: The variant that the verdict is about.
        other: What it is compared with.
        seeds: Those that both ended well.
        difference: Mean of one - other, in the metric's unit.
        sd: Standard deviation of the differences.
        interval: Of the mean difference, by Student's t, for this comparison alone.
        statistic: Of the test.
        p: Of this comparison alone.
        p_holm: Corrected for all comparisons that were made together.
        d_z: difference / sd (Cohen 1988, chapter 2).
        g_z: d_z without its bias from few seeds (Hedges 1981).
        verdict: From `p_holm`.
        notes: Sentences to print beside it.
    """

    one: str
    other: str
    seeds: tuple[int, ...]
    difference: float | None
    sd: float | None = None
    interval: Interval | None = None
    statistic: float | None = None
    p: float | None = None
    p_holm: float | None = None
    d_z: float | None = None
    g_z: float | None = None
    verdict: Verdict = "not tested"
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The comparison in one sentence."""
        subject = f"{self.one} against {self.other}: {self.verdict}"
        if self.difference is None:
            return f"{subject} (no seed in common)."
        parts = [f"difference {self.difference:+.4g}"]
        if self.interval is not None:
            parts.append(f"95 % interval {self.interval.low:+.4g} to {self.interval.high:+.4g}")
        if self.p_holm is not None and self.p is not None:
            parts.append(f"p {self.p:.2g}, {self.p_holm:.2g} by Holm")
        return f"{subject} ({', '.join(parts)}, {len(self.seeds)} seeds)."


def compare(records: Iterable[TrialRecord], direction: Direction, reference: str | None = None, test: Test = "t") -> list[Comparison]:
    """All pairs of variants, or every other one against a reference.

    Args:
        records: Of one study.
        direction: Of the metric.
        reference: The variant to compare with.
        test: Paired t test, or Wilcoxon's signed ranks.

    Raises:
        ConfigError: The reference is no variant.
    """
    scores = scores_of(records)
    if reference is None:
        return _family(scores, list(combinations(scores, 2)), direction, test)
    _check(reference, scores)
    return _family(scores, [(name, reference) for name in scores if name != reference], direction, test)


def compare_pairs(
    records: Iterable[TrialRecord], pairs: Sequence[tuple[str, str]], direction: Direction, test: Test = "t"
) -> list[Comparison]:
    """Chosen pairs of variants, in their order.

    Args:
        records: Of one study.
        pairs: (one, other).
        direction: Of the metric.
        test: Paired t test, or Wilcoxon's signed ranks.

    Raises:
        ConfigError: A name is no variant.
    """
    scores = scores_of(records)
    for name in (name for pair in pairs for name in pair):
        _check(name, scores)
    return _family(scores, pairs, direction, test)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrected for being looked at together (Holm 1979); what was not tested is not counted.

    Args:
        p_values: One per comparison.
    """
    tested = [p for p in p_values if p is not None]
    if not tested:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests

    corrected = iter(multipletests(tested, alpha=ALPHA, method="holm")[1])
    return [None if p is None else float(next(corrected)) for p in p_values]


def hedges(count: int) -> float:
    """What d_z of `count` pairs is multiplied by to be free of bias: Γ(m/2) / (√(m/2) Γ((m-1)/2)), m = count - 1 (Hedges 1981).

    Args:
        count: At least 3, since the mean of d_z does not exist below.
    """
    m = count - 1
    return math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)


def least_p(count: int) -> float:
    """The smallest p that Wilcoxon's two-sided test can give: all of `count` differences have one sign, 2 of 2**count ways.

    Args:
        count: Pairs.
    """
    return min(1.0, 2.0 ** (1 - count))


def verdict(p: float | None, difference: float | None, direction: Direction) -> Verdict:
    """What a corrected p and the sign of the difference say.

    Args:
        p: Corrected.
        difference: one - other.
        direction: Of the metric.
    """
    if p is None or difference is None:
        return "not tested"
    if p > ALPHA:
        return "not significant"
    return "better" if (difference < 0) == (direction == "minimize") else "worse"


def _check(name: str, scores: Mapping[str, object]) -> None:
    if name not in scores:
        raise ConfigError(f"the study has no variant '{name}' to compare with; {suggest(name, scores)}")


def _family(
    scores: Mapping[str, Mapping[int, float]], pairs: Sequence[tuple[str, str]], direction: Direction, test: Test
) -> list[Comparison]:
    found = [_comparison(one, other, scores[one], scores[other], test) for one, other in pairs]
    alone = {frozenset((c.one, c.other)): c.p for c in found}  # a pair that is listed both ways round is tested once
    together = dict(zip(alone, holm(list(alone.values())), strict=True))
    corrected = [together[frozenset((c.one, c.other))] for c in found]
    return [replace(c, p_holm=p, verdict=verdict(p, c.difference, direction)) for c, p in zip(found, corrected, strict=True)]


def _comparison(one: str, other: str, mine: Mapping[int, float], theirs: Mapping[int, float], test: Test) -> Comparison:
    seeds = tuple(sorted(mine.keys() & theirs.keys()))
    notes = _unpaired(one, mine, seeds) + _unpaired(other, theirs, seeds)
    values = [mine[seed] - theirs[seed] for seed in seeds]
    if len(seeds) < LEAST["t"]:
        few = f"{len(seeds)} common seed{'s' * (len(seeds) != 1)}: nothing can be tested."
        return Comparison(one=one, other=other, seeds=seeds, difference=values[0] if values else None, notes=(*notes, few))
    mean, sd = fmean(values), stdev(values)
    still = _still(values, [*mine.values(), *theirs.values()])
    found = Comparison(one=one, other=other, seeds=seeds, difference=mean, sd=sd, interval=t_interval(values), notes=tuple(notes))
    if still is not None:
        return replace(found, p=1.0 if still == _EQUAL else None, notes=(*notes, still))
    statistic, p = _tested(values, test)
    if test == "wilcoxon" and least_p(len(seeds)) > ALPHA:
        notes = [*notes, f"Wilcoxon's p cannot be below {least_p(len(seeds)):.4g} with {len(seeds)} seeds, so it is never significant."]
    d_z = mean / sd
    g_z = d_z * hedges(len(seeds)) if len(seeds) > 2 else None
    return replace(found, statistic=statistic, p=p, d_z=d_z, g_z=g_z, notes=tuple(notes))


_EQUAL = "Both gave the same score with every seed."
_STILL = "The difference is the same with every seed, so there is no noise to test it against."


def _still(values: Sequence[float], scores: Sequence[float]) -> str | None:
    """What there is to say of differences that are all alike but for the rounding of the scores that they are of."""
    if not constant(values, scores):
        return None
    return _EQUAL if constant([0.0, *values], scores) else _STILL


def _tested(values: Sequence[float], test: Test) -> tuple[float, float]:
    from scipy import stats

    found = stats.ttest_1samp(values, 0.0) if test == "t" else stats.wilcoxon(np.asarray(values))
    return float(found.statistic), float(found.pvalue)


def _unpaired(name: str, scores: Mapping[int, float], seeds: Sequence[int]) -> list[str]:
    alone = sorted(scores.keys() - set(seeds))
    if not alone:
        return []
    return [f"Seeds {', '.join(map(str, alone))} of {name} have no partner and are left out."]
