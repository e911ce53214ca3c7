"""What a study says: each variant's score with its interval and its cost.

All of it is pure functions over lists of `TrialRecord` and plain numbers, answered with frozen dataclasses; `docs/concepts/statistics.md`
has the formulas. `direction` is "minimize" or "maximize" everywhere; `notes` are sentences to print beside the figures.

* `statistics.summarise(records, interval="t") -> list[Summary]`: per variant n, mean, sd, both intervals, tuning trials, cost, notes.
* `statistics.uneven_budgets(records) -> dict[str, str]`: variant → sentence, where it had fewer tuning trials than another.
* `statistics.pareto(summaries, direction, cost) -> list[str]`: variants on the front, the cheapest first; `cost` is a `Cost`.
* `intervals.check_seeds(interval, seeds)`: ConfigError where there are fewer seeds than the interval needs, which `ftlab report` asks. No
  SciPy is imported.
* `intervals.t_interval(values)` / `intervals.bootstrap_interval(values) -> Interval | None`.
* `comparisons.compare(records, direction, reference=None, test="t") -> list[Comparison]`: paired over seeds, all pairs or against a
  reference, Holm over all of them; `Comparison.text()` is the sentence to print.
* `comparisons.compare_pairs(records, pairs, direction, test="t") -> list[Comparison]`: the same for chosen pairs.
* `predictions.read_items(path, column, truth=None) -> dict[int, float]`: row → score, from `predictions.jsonl` or `.parquet` of a run.
* `predictions.read_variants(records, folder, column, truth=None)`: variant → seed → row → score, of all runs that kept predictions.
* `items.compare_items(one, other, direction) -> ItemComparison`: of seed → row → score each; paired bootstrap over the test items.
* `items.mcnemar(one, other) -> McNemar`: exact, of row → right or wrong (1 or 0) of two runs.
* `ranks.data_factors(records) -> tuple[str, ...]`: the factors that hold data sets; scores of two data sets are not to be compared.
* `ranks.over_data(records) -> tuple[str, ...]`: the factors whose levels are of other rows, whatever else they set.
* `ranks.mixed(records, factors) -> dict[str, list[str]]`: data set → keys of the source in which its variants differ all the same.
* `ranks.scores_by(records, *factors) -> dict[str, dict[str, float]]`: data set → method → mean or nan, where factors hold the data sets.
* `ranks.rank(scores, direction) -> Ranking`: Friedman's test, mean ranks, Nemenyi's critical difference and pairs.
* `effects.main_effects(records, interval="t") -> list[FactorEffect]`: mean and interval per level of each factor, ANOVA.
* `effects.interactions(records, interval="t") -> list[Interaction]`: mean and interval per cell of two factors, ANOVA.
* `contributions.parts_of(records) -> list[Part]`: the parts of a study that has `knockout`, empty where it has not.
* `contributions.contributions(records, parts, direction) -> list[Contribution]`: what each of them adds; a `Part` may be made by hand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Literal

from ftlab.studies.intervals import LEAST, Interval, Kind, bootstrap_interval, constant, t_interval
from ftlab.studies.records import State, TrialRecord

Direction = Literal["minimize", "maximize"]
Cost = Literal["trainable_params", "seed_cpu_seconds", "wall_seconds", "peak_memory"]

_TRIED: tuple[State, ...] = ("complete", "pruned")
"""A tuning trial that a pruner ended has told what it was started for."""
_OPEN: tuple[State, ...] = ("waiting", "running")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A variant's score and what it cost.

    Args:
        variant: Its name.
        levels: Factor → level.
        scores: Seed → metric, of the seeds that ended well with a finite number.
        planned: How many different seeds there are.
        mean: Of the scores.
        sd: Standard deviation, divided by n - 1.
        t: Interval of the mean by Student's t.
        bootstrap: The same by resampling.
        shown: Which of the two is the main one.
        tuning_trials: Tuning trials that ended, by themselves or by the pruner.
        tuning_cpu_seconds: Processor time of all tuning, failures too.
        seed_cpu_seconds: Processor time of one seed, the median: one seed may have paid for what all share.
        total_cpu_seconds: Processor time of everything that was run for the variant.
        wall_seconds: Of one seed, the median.
        peak_memory: Bytes, the greatest of the seeds.
        trainable_params: Parameters that were trained, the greatest of the seeds.
        states: How many of its seeds ended how.
        notes: Sentences to print beside it.
    """

    variant: str
    levels: Mapping[str, str]
    scores: Mapping[int, float]
    planned: int
    mean: float | None
    sd: float | None
    t: Interval | None
    bootstrap: Interval | None
    shown: Kind
    tuning_trials: int
    tuning_cpu_seconds: float | None
    seed_cpu_seconds: float | None
    total_cpu_seconds: float | None
    wall_seconds: float | None
    peak_memory: int | None
    trainable_params: int | None
    states: Mapping[State, int]
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many seeds the score stands on."""
        return len(self.scores)

    @property
    def interval(self) -> Interval | None:
        """The main interval."""
        return self.t if self.shown == "t" else self.bootstrap


def scores_of(records: Iterable[TrialRecord]) -> dict[str, dict[int, float]]:
    """Variant → seed → metric, of the seeds that ended well with a finite number; every variant is there, in the records' order.

    A seed counts once however often it is listed: its second record says nothing new.

    Args:
        records: Of one study.
    """
    found: dict[str, dict[int, float]] = {}
    for record in records:
        scores = found.setdefault(record.variant, {})
        if record.phase == "seeds" and record.state == "complete" and record.value is not None and math.isfinite(record.value):
            scores.setdefault(record.seed, record.value)
    return found


def summarise(records: Sequence[TrialRecord], interval: Kind = "t") -> list[Summary]:
    """Each variant's score, interval, cost and what is to be said of it, in the records' order.

    Args:
        records: Of one study.
        interval: Which interval is the main one.
    """
    uneven = uneven_budgets(records)
    return [
        _summary([r for r in records if r.variant == variant], scores, interval, uneven.get(variant))
        for variant, scores in scores_of(records).items()
    ]


def _summary(records: Sequence[TrialRecord], scores: Mapping[int, float], interval: Kind, uneven: str | None) -> Summary:
    trials = [r for r in reversed(records) if r.phase == "seeds"]
    seeds = list({r.seed: r for r in sorted(trials, key=lambda r: r.state == "complete")}.values())  # the record that the score is of
    ended = [r for r in seeds if r.seed in scores]
    tuning = [r for r in records if r.phase == "tune"]
    values = list(scores.values())
    states = Counter(r.state for r in seeds)
    notes = [*_notes(values, len(seeds), states, interval), *([uneven] if uneven else [])]
    return Summary(
        variant=records[0].variant,
        levels=records[0].levels,
        scores=scores,
        planned=len(seeds),
        mean=fmean(values) if values else None,
        sd=stdev(values) if len(values) > 1 else None,
        t=t_interval(values),
        bootstrap=bootstrap_interval(values),
        shown=interval,
        tuning_trials=sum(r.state in _TRIED for r in tuning),
        tuning_cpu_seconds=_total(r.cpu_seconds for r in tuning),
        seed_cpu_seconds=_middle(r.cpu_seconds for r in ended),
        total_cpu_seconds=_total(r.cpu_seconds for r in records),
        wall_seconds=_middle(r.wall_seconds for r in ended),
        peak_memory=max((r.peak_memory for r in ended if r.peak_memory is not None), default=None),
        trainable_params=max((r.trainable_params for r in ended if r.trainable_params is not None), default=None),
        states=states,
        notes=tuple(notes),
    )


def _notes(values: Sequence[float], planned: int, states: Mapping[State, int], interval: Kind) -> list[str]:
    notes = []
    waiting = sum(states.get(state, 0) for state in _OPEN)
    if waiting:
        notes.append(f"{waiting} of {planned} seeds have not ended.")
    lost = planned - waiting - len(values)
    if lost == planned:
        notes.append("No seed gave a finite score.")
    elif lost:
        notes.append(f"{lost} of {planned} seeds gave no finite score and are left out, which may flatter the variant.")
    if not values:
        return notes
    if len(values) == 1:
        notes.append("One seed: no interval, and no comparison with it can be tested.")
    elif len(values) < LEAST[interval]:
        notes.append(f"{len(values)} seeds are fewer than the {LEAST[interval]} that the {interval} interval needs.")
    elif constant(values):
        notes.append("All seeds gave the same score: the interval has no width because the metric did not change with the seed.")
    return notes


def uneven_budgets(records: Iterable[TrialRecord]) -> dict[str, str]:
    """Variant → sentence, for each that had fewer tuning trials than another: its score may be lower for that alone.

    Args:
        records: Of one study.
    """
    tried: Counter[str] = Counter()
    for record in records:
        tried[record.variant] += record.phase == "tune" and record.state in _TRIED
    most = max(tried.values(), default=0)
    rich = next((variant for variant, count in tried.items() if count == most), "")
    return {
        variant: f"{count} of its tuning trials ended well, {most} of {rich}: budgets are not equal."
        for variant, count in tried.items()
        if count < most
    }


def pareto(summaries: Iterable[Summary], direction: Direction, cost: Cost) -> list[str]:
    """Variants that no other one matches at less cost or beats at the same, the cheapest first.

    Only means are looked at: a neighbour of the front may be on it with other seeds. Variants without a score or cost are left out.

    Args:
        summaries: Of one study.
        direction: Of the metric.
        cost: What is paid for quality.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    points = [(float(getattr(s, cost)), sign * s.mean, s.variant) for s in summaries if s.mean is not None and getattr(s, cost) is not None]
    return [
        name for paid, score, name in sorted(points) if not any(p <= paid and q <= score and (p, q) != (paid, score) for p, q, _ in points)
    ]


def _total(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) if known else None


def _middle(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None
