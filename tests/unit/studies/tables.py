"""Records of made-up studies, from plain tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.studies.records import TrialRecord


def trial(variant: str, seed: int, value: float | None, **fields: Any) -> TrialRecord:
    fields = {"levels": {}, "phase": "seeds", "state": "complete", **fields}
    return TrialRecord(key=f"{variant}-{fields['phase']}-{seed}", variant=variant, seed=seed, value=value, **fields)


def table(
    scores: Mapping[str, Sequence[float] | Mapping[int, float]], levels: Mapping[str, Mapping[str, str]] | None = None
) -> list[TrialRecord]:
    """One record per variant and seed; seeds count from 0 where a list is given."""
    return [
        trial(variant, seed, value, levels=(levels or {}).get(variant, {}))
        for variant, row in scores.items()
        for seed, value in (row.items() if isinstance(row, Mapping) else enumerate(row))
    ]


def grid(scores: Mapping[tuple[str, str], Sequence[float]], factors: tuple[str, str] = ("model.tuning", "size")) -> list[TrialRecord]:
    """Records of two factors; a variant is named by its levels."""
    named = {f"{a}-{b}": row for (a, b), row in scores.items()}
    levels = {f"{a}-{b}": dict(zip(factors, (a, b), strict=True)) for a, b in scores}
    return table(named, levels)
