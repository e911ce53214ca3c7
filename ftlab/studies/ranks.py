"""Variants ranked over several data sets (Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets")."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from ftlab.errors import ConfigError, suggest
from ftlab.studies.intervals import ALPHA, LEVEL
from ftlab.studies.records import TrialRecord
from ftlab.studies.statistics import Direction, scores_of

_SOURCE = "data.source"
_FEW = 10
"""Data sets up to which the χ² of Friedman's statistic is a poor approximation (Demšar 2006, section 3.2.2)."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Methods ranked on every data set.

    Args:
        datasets: Those on which every method has a score.
        mean_ranks: Method → mean rank, best first; 1 is best, equal scores share a rank.
        statistic: Friedman's χ².
        p: Its test of whether all methods are alike.
        critical_difference: Mean ranks that are further apart differ (Nemenyi 1963).
        pairs: (one, other) → p by Nemenyi, corrected for all pairs; the first one has the better rank.
        different: Pairs that differ: Friedman's test says that there is a difference, and Nemenyi's that it is here.
        notes: Sentences to print beside it.
    """

    datasets: tuple[str, ...]
    mean_ranks: Mapping[str, float]
    statistic: float
    p: float
    critical_difference: float
    pairs: Mapping[tuple[str, str], float]
    different: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """The ranking's finding in one sentence."""
        if not self.different:
            return f"No difference between methods is significant (Friedman's p {self.p:.2g}, {len(self.datasets)} data sets)."
        found = "; ".join(f"{one} better than {other}" for one, other in self.different)
        apart = f"mean ranks apart by more than {self.critical_difference:.3g}"
        tested = f"Friedman's p {self.p:.2g}, {len(self.datasets)} data sets"
        return f"{found} ({apart}; {tested}); every other pair: not significant."


def data_factors(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """The factors that set nothing but the data source, whatever they are called: scores of two of their levels are of other rows.

    Factors that advance together (`zip`) hold data sets together where one of them does: records do not say which of them sets which key.
    A factor that changes the rows of the training split alone is none of them.

    Args:
        records: Of one study.
    """
    keys = _explained(records)
    shared = Counter(key for found in keys.values() for key in found)
    return tuple(f for f, found in keys.items() if _any_source(found) and all(_of_source(key) or shared[key] > 1 for key in found))


def over_data(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """The factors whose levels are of other rows, whatever else they set: an effect of theirs would compare scores of two data sets.

    Args:
        records: Of one study.
    """
    return tuple(f for f, found in _explained(records).items() if _any_source(found))


def mixed(records: Iterable[TrialRecord], factors: Iterable[str]) -> dict[str, list[str]]:
    """Data set → keys of the data source in which its variants differ all the same; only where there are any.

    Args:
        records: Of one study.
        factors: Those that hold data sets.
    """
    factors = tuple(factors)
    alike: dict[str, list[Mapping[str, object]]] = {}
    for record in _firsts(records):
        alike.setdefault(data_set(record.levels, factors), []).append(_settings(record))
    found = {name: [key for key in _varied(those) if _of_source(key)] for name, those in alike.items()}
    return {name: keys for name, keys in found.items() if keys}


def _explained(records: Iterable[TrialRecord]) -> dict[str, list[str]]:
    """Factor → keys that vary and have one value with each of its levels; it sets them, or advances with another that does."""
    first = _firsts(records)
    settings = [_settings(record) for record in first]
    varied = _varied(settings)
    found = {}
    for factor in dict.fromkeys(f for record in first for f in record.levels):
        levels = [record.levels.get(factor) for record in first]
        found[factor] = [key for key in varied if _by_level(levels, [mine.get(key) for mine in settings])]
    return found


def _firsts(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    first: dict[str, TrialRecord] = {}
    for record in records:
        first.setdefault(record.variant, record)
    return list(first.values())


def _settings(record: TrialRecord) -> dict[str, object]:
    return {key: _scored(value) for key, value in record.settings.items() if key not in record.tuned}


def _varied(settings: Sequence[Mapping[str, object]]) -> list[str]:
    return [key for key in dict.fromkeys(k for mine in settings for k in mine) if any(m.get(key) != settings[0].get(key) for m in settings)]


def _by_level(levels: Sequence[str | None], values: Sequence[object]) -> bool:
    """Whether one level always has one value."""
    seen: dict[str | None, object] = {}
    return all(seen.setdefault(level, value) == value for level, value in zip(levels, values, strict=True))


def _any_source(keys: Iterable[str]) -> bool:
    return any(map(_of_source, keys))


def _of_source(key: str) -> bool:
    return key == _SOURCE or key.startswith(f"{_SOURCE}.")


def _scored(value: object) -> object:
    """Of the files of several splits those that are scored."""
    files = {split: file for split, file in value.items() if split != "train"} if isinstance(value, Mapping) else {}
    return files or value


def data_set(levels: Mapping[str, str], factors: Iterable[str]) -> str:
    """What a variant's data set is called.

    Args:
        levels: The variant's.
        factors: Whose levels are data sets.
    """
    return ", ".join(levels[factor] for factor in factors if factor in levels)


def scores_by(records: Iterable[TrialRecord], *factors: str) -> dict[str, dict[str, float]]:
    """Data set → method → mean over seeds, where the levels of some factors are the data sets and all other levels make the method.

    A method that was run there and of which no seed gave a score has nan.

    Args:
        records: Of one study.
        factors: Whose levels are data sets.

    Raises:
        ConfigError: A variant has no such factor.
    """
    known = list(records)
    levels = {r.variant: r.levels for r in known}
    found: dict[str, dict[str, float]] = {}
    for variant, scores in scores_of(known).items():
        for factor in factors:
            if factor not in levels[variant]:
                raise ConfigError(f"variant {variant} has no factor '{factor}' to rank over; {suggest(factor, levels[variant])}")
        method = ", ".join(level for name, level in levels[variant].items() if name not in factors)
        found.setdefault(data_set(levels[variant], factors), {})[method] = fmean(scores.values()) if scores else math.nan
    return found


def rank(scores: Mapping[str, Mapping[str, float]], direction: Direction) -> Ranking:
    """Friedman's test over data sets, and Nemenyi's for each pair of methods.

    Args:
        scores: Data set → method → score; nan where there is none.
        direction: Of the scores.

    Raises:
        ConfigError: There are fewer than three methods or fewer than two data sets that have them all.
    """
    from scipy import stats

    every = dict.fromkeys(name for row in scores.values() for name in row)
    methods = [m for m in every if any(math.isfinite(row.get(m, math.nan)) for row in scores.values())]
    full = [name for name, row in scores.items() if all(math.isfinite(row.get(m, math.nan)) for m in methods)]
    if len(methods) < 3 or len(full) < 2:
        raise ConfigError(
            f"ranks need at least 3 methods and 2 data sets on which all have a score, here {len(methods)} and {len(full)}; "
            "compare two methods over seeds instead."
        )
    sign = 1 if direction == "minimize" else -1
    table = np.array([[sign * scores[name][m] for m in methods] for name in full])
    ranks = dict(zip(methods, (float(r) for r in stats.rankdata(table, axis=1).mean(0)), strict=True))
    statistic, p = (0.0, 1.0) if _tied(table) else (float(x) for x in stats.friedmanchisquare(*table.T))
    mean_ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))
    width = math.sqrt(len(methods) * (len(methods) + 1) / (6 * len(full)))
    pairs = {(one, other): _nemenyi(mean_ranks[other] - mean_ranks[one], width, len(methods)) for one, other in combinations(mean_ranks, 2)}
    return Ranking(
        datasets=tuple(full),
        mean_ranks=mean_ranks,
        statistic=statistic,
        p=p,
        critical_difference=float(stats.studentized_range.ppf(LEVEL, len(methods), np.inf)) / math.sqrt(2) * width,
        pairs=pairs,
        different=tuple(pair for pair, value in pairs.items() if max(value, p) <= ALPHA),
        notes=tuple(_notes([m for m in every if m not in methods], list(scores), full)),
    )


def _nemenyi(apart: float, width: float, methods: int) -> float:
    from scipy import stats

    return float(stats.studentized_range.sf(math.sqrt(2) * apart / width, methods, np.inf))


def _tied(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Whether all methods are equal on every data set, of which SciPy makes 0 / 0."""
    return bool((table == table[:, :1]).all())


def _notes(without: list[str], datasets: list[str], full: list[str]) -> list[str]:
    notes = [f"No score on any data set, and so not ranked: {'; '.join(without)}."] if without else []
    missing = [name for name in datasets if name not in full]
    if missing:
        notes.append(f"Not every method has a score on {', '.join(missing)}: left out.")
    if len(full) <= _FEW:
        notes.append(f"{len(full)} data sets are few: Friedman's p is rough, and only large differences can be found.")
    return notes
