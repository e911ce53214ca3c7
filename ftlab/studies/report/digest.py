"""A study's figures, gathered once for the tables, the page and the static figures; what is computed is computed by the statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import get_args

from ftlab.errors import ConfigError, SecurityError
from ftlab.studies.comparisons import Comparison, compare_pairs
from ftlab.studies.contributions import Contribution, contributions, parts_of
from ftlab.studies.intervals import Kind
from ftlab.studies.ranks import Ranking, data_factors, data_set, mixed, over_data, rank, scores_by
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.curves import Curve, curves
from ftlab.studies.report.escaping import printable
from ftlab.studies.report.fingerprints import Versions, versions
from ftlab.studies.report.testitems import Column, over_items
from ftlab.studies.statistics import Cost, Direction, Summary, pareto, summarise

COSTS: Mapping[Cost, str] = {
    "trainable_params": "trainable parameters",
    "seed_cpu_seconds": "CPU time of a run",
    "wall_seconds": "wall time of a run",
    "peak_memory": "peak memory",
}
FAILED = ("failed", "timeout", "invalid")
_OPEN = ("waiting", "running")
assert set(COSTS) == set(get_args(Cost))


@dataclass(frozen=True)
class Tuning:
    """How the search for one variant went: values in the order of the trials, the best so far, and what each key was."""

    values: tuple[float | None, ...]
    best: tuple[float | None, ...]
    keys: Mapping[str, tuple[tuple[object, float | None], ...]]


@dataclass(frozen=True)
class Digest:
    """A study to be reported.

    Args:
        name: Of the study.
        metric: What it compares by.
        direction: Whether less or more of it is better.
        folder: The study's.
        records: All its trials.
        column: What is compared over test items, if anything.
        interval: Which interval of a mean is shown first.
        cached: Whether runs shared hidden states, which the first of them computed.

    Raises:
        SecurityError: A trial's folder lies outside of the study's; whoever can write to a shared storage could have files shown.
    """

    name: str
    metric: str
    direction: Direction
    folder: Path
    records: tuple[TrialRecord, ...]
    column: Column | None = None
    interval: Kind = "t"
    cached: bool = False

    def __post_init__(self) -> None:
        for record in self.records:
            place = PurePosixPath(record.folder)
            if place.is_absolute() or ".." in place.parts:
                raise SecurityError(
                    f"the storage says that trial {printable(record.key)} lies in {printable(record.folder)}, outside of the study's "
                    "folder; find out who wrote that, and take the trial out."
                )

    @cached_property
    def summaries(self) -> list[Summary]:
        """Of each variant, in the order in which they were listed."""
        return summarise(self.records, self.interval)

    @cached_property
    def data(self) -> tuple[str, ...]:
        """The factors that hold data sets."""
        return data_factors(self.records)

    @cached_property
    def mixed(self) -> dict[str, list[str]]:
        """Data set → keys of the data source in which its variants differ, where no factor holds data sets alone."""
        return mixed(self.records, self.data)

    @cached_property
    def over_data(self) -> tuple[str, ...]:
        """The factors whose effects would compare scores of two data sets."""
        return over_data(self.records)

    @cached_property
    def by_data(self) -> dict[str, list[Summary]]:
        """Data set → its variants, the best first and those without a score last; one data set without a name where no factor holds any.

        Scores of two data sets are not compared.
        """
        sign = 1.0 if self.direction == "minimize" else -1.0
        found: dict[str, list[Summary]] = {}
        for summary in self.summaries:
            found.setdefault(data_set(summary.levels, self.data), []).append(summary)
        return {name: sorted(those, key=lambda s: math.inf if s.mean is None else sign * s.mean) for name, those in found.items()}

    @cached_property
    def ranked(self) -> list[Summary]:
        """All of them, one data set after the other."""
        return [summary for those in self.by_data.values() for summary in those]

    @cached_property
    def best(self) -> dict[str, Summary]:
        """Data set → the variant with the best mean, where any has one."""
        return {name: those[0] for name, those in self._compared.items() if those[0].mean is not None}

    @property
    def _compared(self) -> dict[str, list[Summary]]:
        """Data set → its variants, without those that are not of one data set after all."""
        return {name: those for name, those in self.by_data.items() if name not in self.mixed}

    def is_best(self, summary: Summary) -> bool:
        """Whether no other variant has a better mean on its data set."""
        return any(summary.variant == best.variant for best in self.best.values())

    @property
    def pairs(self) -> str:
        """Those whose p values are corrected together, in words."""
        return " ".join(["all pairs of variants", *(f"with the same {factor}" for factor in self.data)])

    @cached_property
    def against_best(self) -> dict[str, Comparison]:
        """Variant → its comparison with the best one of its data set.

        Corrected for all pairs: the best was chosen by the same scores, so it might have been any of them.
        """
        pairs = [(two.variant, one.variant) for those in self._compared.values() for one, two in combinations(those, 2)]
        best = {summary.variant for summary in self.best.values()}
        return {pair.one: pair for pair in compare_pairs(self.records, pairs, self.direction) if pair.other in best}

    @cached_property
    def ranking(self) -> Ranking | str | None:
        """Of the methods over data sets, or the sentence that says why there is none; None where no factor holds data sets."""
        if self.data and self.mixed:
            return f"No ranking: variants on {', '.join(self.mixed)} do not share one data set."
        try:
            return rank(scores_by(self.records, *self.data), self.direction) if self.data else None
        except ConfigError as few:
            return f"No ranking: {few}"

    @cached_property
    def contributions(self) -> list[Contribution]:
        """What each part of a knock-out adds."""
        return contributions(self.records, parts_of(self.records), self.direction)

    @cached_property
    def over_items(self) -> list[str]:
        """The comparisons over test items, in sentences; empty where none were asked for."""
        if self.column is None or not self.best:
            return []
        against = {pair.one: pair.other for pair in self.against_best.values()}
        return over_items(self.records, self.folder, against, self.direction, self.column)

    @cached_property
    def curves(self) -> dict[str, dict[str, Curve]]:
        """Metric → variant → learning curve."""
        return curves(self.records, self.folder, self.metric)

    def fronts(self, cost: Cost) -> list[list[str]]:
        """For each data set, the variants that no other one beats in both score and cost, the cheapest first."""
        return [pareto(those, self.direction, cost) for those in self._compared.values()]

    @cached_property
    def tuning(self) -> dict[str, Tuning]:
        """Variant → its search, where there was one."""
        found: dict[str, list[TrialRecord]] = {}
        for record in self.records:
            if record.phase == "tune" and record.state not in _OPEN:
                found.setdefault(record.variant, []).append(record)
        return {variant: self._tuning(trials) for variant, trials in found.items()}

    def _tuning(self, trials: Sequence[TrialRecord]) -> Tuning:
        choose = min if self.direction == "minimize" else max
        # A pruned trial's last value is not its score.
        values = [t.value if t.state == "complete" and t.value is not None and math.isfinite(t.value) else None for t in trials]
        best: list[float | None] = []
        for value in values:
            so_far = [v for v in (value, best[-1] if best else None) if v is not None]
            best.append(choose(so_far) if so_far else None)
        keys = dict.fromkeys(key for t in trials for key in t.tuned)
        points = {key: tuple((t.tuned.get(key), v) for t, v in zip(trials, values, strict=True)) for key in keys}
        return Tuning(tuple(values), tuple(best), points)

    @cached_property
    def versions(self) -> list[Versions]:
        """What each trial wrote down of what it was run with, in the trials' order."""
        return [versions(self.folder / r.folder) if r.folder else {} for r in self.records]

    @property
    def failures(self) -> list[TrialRecord]:
        """Trials that did not end well."""
        return [r for r in self.records if r.state in FAILED]

    @property
    def running(self) -> bool:
        """Whether trials wait or run."""
        return any(r.state in _OPEN for r in self.records)

    @property
    def cpu_seconds(self) -> float:
        """Of all trials."""
        return math.fsum(r.cpu_seconds for r in self.records if r.cpu_seconds is not None)
