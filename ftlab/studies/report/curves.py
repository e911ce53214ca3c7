"""Learning curves from run folders: of each variant the mean over its seeds, and the band from the smallest to the largest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from ftlab.studies.records import TrialRecord

FILE = "metrics.jsonl"
_POINTS = 120
"""Points of a drawn curve; a chart is about twice as many pixels wide on a phone."""
_LONGEST = 64 << 20
"""Bytes of a file that is read; what is longer was not written by one run of a study."""
_NOT_METRICS = ("step", "time", "epoch")

Series = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Metric → (steps, values)."""


@dataclass(frozen=True)
class Curve:
    """One variant's curve: steps, mean, smallest and largest over its seeds."""

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


def read(path: Path) -> Series:
    """Every metric of a run; lines that a kill cut, and values that are no finite number, are left out.

    Args:
        path: A run's `metrics.jsonl`.
    """
    if not path.is_file() or path.stat().st_size > _LONGEST:
        return {}
    found: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        for name, step, value in _numbers(line):
            found.setdefault(name, {})[step] = value
    return {name: _arrays(points) for name, points in found.items()}


def _numbers(line: str) -> Iterable[tuple[str, float, float]]:
    try:
        record = json.loads(line)
    except ValueError:  # a run that is being killed cuts its last line
        return
    if not isinstance(record, dict) or not _is_number(step := record.get("step")):
        return
    yield from ((str(name), float(step), float(value)) for name, value in record.items() if name not in _NOT_METRICS and _is_number(value))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _arrays(points: Mapping[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps = sorted(points)
    return np.array(steps, dtype=np.float64), np.array([points[s] for s in steps], dtype=np.float64)


def band(runs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Curve:
    """Mean, smallest and largest value over runs.

    Drawn where every run has values; between the steps at which a run logged, its value is the line between them.

    Args:
        runs: (steps, values) of each seed.
    """
    first, last = max(steps[0] for steps, _ in runs), min(steps[-1] for steps, _ in runs)
    every = np.unique(np.concatenate([steps for steps, _ in runs]))
    grid = _thinned(every[(every >= first) & (every <= last)])
    stack = np.stack([np.interp(grid, steps, values) for steps, values in runs])
    steps, mean, low, high = (tuple(map(float, row)) for row in (grid, stack.mean(0), stack.min(0), stack.max(0)))
    return Curve(steps, mean, low, high, len(runs))


def _thinned(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `_POINTS` of the steps, evenly spread, the first and the last among them."""
    if len(steps) <= _POINTS:
        return steps
    places = np.unique(np.linspace(0, len(steps) - 1, _POINTS).round().astype(np.int64))
    return np.asarray(steps[places], dtype=np.float64)


def curves(records: Iterable[TrialRecord], folder: Path, metric: str, most: int = 6) -> dict[str, dict[str, Curve]]:
    """Metric → variant → curve, over the trials that are compared.

    Args:
        records: Trials of the study; those that look for hyper-parameters are left out.
        folder: The study's.
        metric: The study's metric, which comes first.
        most: How many metrics to keep: those that most variants have, validation before training.
    """
    runs: dict[str, dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]] = {}
    for variant, trials in _compared(records).items():
        for trial in trials:
            for name, series in read(folder / trial.folder / FILE).items():
                runs.setdefault(name, {}).setdefault(variant, []).append(series)
    first = {metric: 0, "val_loss": 1, "train_loss": 2}
    order = sorted(runs, key=lambda n: (first.get(n, 3), not n.startswith("val_"), -len(runs[n]), n))
    bands = {name: {variant: band(found) for variant, found in runs[name].items()} for name in order[:most]}
    # Seeds whose steps do not meet have no band, as a run that has just begun beside one that is further.
    return {name: kept for name, found in bands.items() if (kept := {v: c for v, c in found.items() if c.steps})}


def _compared(records: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Variant → its complete trials, or those that run while none is complete."""
    found: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.phase == "seeds" and record.folder and record.state in ("complete", "running"):
            found.setdefault(record.variant, []).append(record)
    return {name: [t for t in trials if t.state == "complete"] or trials for name, trials in found.items()}
