"""A study's figures, gathered once for the tables, the page and the static figures; what is computed is computed by the statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import get_args

from ftlab.errors import SecurityError
from ftlab.studies.comparisons import Comparison, compare
from ftlab.studies.intervals import Kind
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.curves import Curve, curves
from ftlab.studies.report.escaping import printable
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
    def ranked(self) -> list[Summary]:
        """The same, the best first and those without a score last."""
        sign = 1.0 if self.direction == "minimize" else -1.0
        return sorted(self.summaries, key=lambda s: math.inf if s.mean is None else sign * s.mean)

    @property
    def best(self) -> Summary | None:
        """The variant with the best mean."""
        return self.ranked[0] if self.ranked and self.ranked[0].mean is not None else None

    @cached_property
    def against_best(self) -> dict[str, Comparison]:
        """Variant → its comparison with the best one.

        Corrected for all pairs: the best was chosen by the same scores, so it might have been any of them.
        """
        if self.best is None:
            return {}
        name = self.best.variant
        rest = [r for r in self.records if r.variant != name]
        pairs = compare([*rest, *(r for r in self.records if r.variant == name)], self.direction)
        return {pair.one: pair for pair in pairs if pair.other == name}

    @cached_property
    def over_items(self) -> list[str]:
        """The comparisons over test items, in sentences; empty where none were asked for."""
        if self.column is None or self.best is None:
            return []
        return over_items(self.records, self.folder, self.best.variant, self.direction, self.column)

    @cached_property
    def curves(self) -> dict[str, dict[str, Curve]]:
        """Metric → variant → learning curve."""
        return curves(self.records, self.folder, self.metric)

    def front(self, cost: Cost) -> list[str]:
        """Variants that no other one beats in both score and cost, the cheapest first."""
        return pareto(self.summaries, self.direction, cost)

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
