"""Main effects of factors and interactions of two, with seeds as the subjects of repeated measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import fmean

import numpy as np

from ftlab.studies.intervals import Interval, Kind, constant, interval_of
from ftlab.studies.records import TrialRecord
from ftlab.studies.statistics import scores_of

Levels = tuple[str, ...]
"""One level of each factor that is looked at, in the factors' order."""


@dataclass(frozen=True, kw_only=True)
class Anova:
    """F test of an effect against its variation over seeds (repeated measures, `statsmodels.stats.anova.AnovaRM`).

    Args:
        f: The statistic.
        between: Degrees of freedom of the effect.
        within: Degrees of freedom of its variation over seeds.
        epsilon: How far differences between levels vary alike over seeds; 1 where they do and with two levels.
        p: Of the F distribution with epsilon times both degrees of freedom (Greenhouse and Geisser 1959); not corrected for other factors.
    """

    f: float
    between: float
    within: float
    epsilon: float
    p: float


@dataclass(frozen=True, kw_only=True)
class LevelMean:
    """A level's mean over all else.

    Args:
        levels: Its name; of a cell, two names.
        mean: Over the seeds' means.
        interval: Over the seeds' means: what else varies is the same in each.
    """

    levels: Levels
    mean: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class FactorEffect:
    """What a factor's levels do, averaged over those combinations of the others that were run with each of its levels.

    Args:
        factor: Its name.
        levels: Mean of each; empty where no combination of the others has them all.
        seeds: Those on which all of it ended well.
        anova: Of the factor; None of one seed or where the effect is the same with every seed.
        notes: Sentences to print beside it.
    """

    factor: str
    levels: tuple[LevelMean, ...]
    seeds: tuple[int, ...]
    anova: Anova | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """Whether the effect of one factor depends on the level of another.

    Args:
        factors: The two.
        cells: Mean of each pair of levels; empty where no combination of the others has them all.
        departures: What each cell's mean has over the sum of the two factors' own effects; all are 0 without an interaction.
        seeds: Those on which all of it ended well.
        anova: Of the interaction.
        notes: Sentences to print beside it.
    """

    factors: tuple[str, str]
    cells: tuple[LevelMean, ...]
    departures: tuple[LevelMean, ...]
    seeds: tuple[int, ...]
    anova: Anova | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Design:
    """Scores of some factors, the others averaged out: seed → levels → score."""

    factors: Levels
    scores: Mapping[int, Mapping[Levels, float]]
    notes: tuple[str, ...]

    def cells(self) -> list[Levels]:
        return list(next(iter(self.scores.values()), {}))

    def means(self, level: Mapping[Levels, Sequence[float]], kind: Kind) -> tuple[LevelMean, ...]:
        return tuple(LevelMean(levels=name, mean=fmean(values), interval=interval_of(values, kind)) for name, values in level.items())

    def over_seeds(self) -> dict[Levels, list[float]]:
        return {cell: [row[cell] for row in self.scores.values()] for cell in self.cells()}


def main_effects(records: Iterable[TrialRecord], interval: Kind = "t") -> list[FactorEffect]:
    """The effect of every factor with at least two levels.

    Args:
        records: Of one study.
        interval: What the intervals of the means are by.
    """
    known = list(records)
    effects = []
    for factor in _factors(known):
        design = _design(known, (factor,))
        effects.append(
            FactorEffect(
                factor=factor,
                levels=design.means(design.over_seeds(), interval),
                seeds=tuple(design.scores),
                anova=_anova(design, _centred(design)),
                notes=design.notes,
            )
        )
    return effects


def interactions(records: Iterable[TrialRecord], interval: Kind = "t") -> list[Interaction]:
    """The interaction of every two factors with at least two levels each.

    Args:
        records: Of one study.
        interval: What the intervals of the means are by.
    """
    known = list(records)
    found = []
    for one, other in combinations(_factors(known), 2):
        design = _design(known, (one, other))
        departures = _departures(design)
        found.append(
            Interaction(
                factors=(one, other),
                cells=design.means(design.over_seeds(), interval),
                departures=design.means(departures, interval),
                seeds=tuple(design.scores),
                anova=_anova(design, departures),
                notes=design.notes,
            )
        )
    return found


def _factors(records: Sequence[TrialRecord]) -> list[str]:
    levels: dict[str, set[str]] = {}
    for record in records:
        for factor, level in record.levels.items():
            levels.setdefault(factor, set()).add(level)
    return [factor for factor, names in levels.items() if len(names) > 1]


def _design(records: Sequence[TrialRecord], factors: Levels) -> _Design:
    """The part of the table that is balanced for some factors.

    Of the others' combinations those stay that were run with all levels of `factors`; of the seeds those on which all that ended well.
    """
    levels = {r.variant: r.levels for r in records}
    table: dict[Levels, dict[Levels, dict[int, float]]] = {}
    for variant, scores in scores_of(records).items():
        if all(factor in levels[variant] for factor in factors):
            rest = tuple(f"{k}: {v}" for k, v in levels[variant].items() if k not in factors)
            table.setdefault(rest, {})[tuple(levels[variant][f] for f in factors)] = scores
    axes = [dict.fromkeys(cell[place] for row in table.values() for cell in row) for place in range(len(factors))]
    cells = list(product(*axes))
    full = [row for row in table.values() if len(row) == len(cells)]
    notes = []
    if len(full) < len(table):
        told = f"{len(full)} of {len(table)} combinations of the other factors ran with every level of {' and '.join(factors)}"
        notes.append(f"Not balanced: {told}, and only these are averaged." if full else f"Not balanced: {told}, so no effect is given.")
    seeds = sorted(set.intersection(*(set(scores) for row in full for scores in row.values()))) if full else []
    every = {seed for row in full for scores in row.values() for seed in scores}
    if len(seeds) < len(every):
        lost = ", ".join(map(str, sorted(every - set(seeds))))
        notes.append(f"Seeds {lost} did not end well with every variant and are left out.")
    return _Design(
        factors=factors,
        scores={seed: {cell: fmean(row[cell][seed] for row in full) for cell in cells} for seed in seeds},
        notes=tuple(notes),
    )


def _departures(design: _Design) -> dict[Levels, list[float]]:
    found: dict[Levels, list[float]] = {cell: [] for cell in design.cells()}
    for row in design.scores.values():
        whole = fmean(row.values())
        for one, other in row:
            mine = fmean(v for (level, _), v in row.items() if level == one)
            theirs = fmean(v for (_, level), v in row.items() if level == other)
            found[one, other].append(row[one, other] - mine - theirs + whole)
    return found


def _anova(design: _Design, effect: Mapping[Levels, Sequence[float]]) -> Anova | None:
    """With two levels this is the paired t test: F = t².

    Args:
        design: The whole of it.
        effect: What is left in each cell for the effect, one per seed.
    """
    scores = [score for row in design.scores.values() for score in row.values()]
    if len(design.scores) < 2 or all(constant(values, scores) for values in effect.values()):
        return None
    import pandas as pd
    from scipy import stats
    from statsmodels.stats.anova import AnovaRM

    columns = [f"factor{place}" for place in range(len(design.factors))]  # a dotted key is a formula to statsmodels
    rows = [
        {**dict(zip(columns, cell, strict=True)), "seed": seed, "score": score}
        for seed, row in design.scores.items()
        for cell, score in row.items()
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # of another effect, which may have no noise
        table = AnovaRM(pd.DataFrame(rows), "score", "seed", within=columns).fit().anova_table
    found = table.iloc[-1]  # the factor alone, or the interaction after the two factors
    f, between, within = float(found["F Value"]), float(found["Num DF"]), float(found["Den DF"])
    covariance = np.cov(np.array(list(effect.values())))
    epsilon = float(np.trace(covariance) ** 2 / (between * np.square(covariance).sum()))
    return Anova(f=f, between=between, within=within, epsilon=epsilon, p=float(stats.f.sf(f, epsilon * between, epsilon * within)))


def _centred(design: _Design) -> dict[Levels, list[float]]:
    """Scores less their seed's mean: effects are measured within seeds."""
    return {cell: [row[cell] - fmean(row.values()) for row in design.scores.values()] for cell in design.cells()}
