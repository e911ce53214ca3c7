"""The best variant against the others over test items, where runs kept predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.studies.comparisons import holm, verdict
from ftlab.studies.items import ItemComparison, compare_items
from ftlab.studies.predictions import read_variants
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.numbers import number, probability
from ftlab.studies.statistics import Direction


@dataclass(frozen=True)
class Column:
    """What is scored of a prediction.

    Args:
        name: Column with a score in the study's own direction, or with an answer where there is a truth.
        truth: Column with the right answer.
    """

    name: str
    truth: str | None = None


def over_items(records: Sequence[TrialRecord], folder: Path, against: Mapping[str, str], direction: Direction, column: Column) -> list[str]:
    """A sentence for each variant that has predictions.

    Args:
        records: Of the study.
        folder: The study's.
        against: Variant → the best one, with which it is compared.
        direction: Of the study's metric.
        column: What is scored.

    Raises:
        DataError: A file or its column cannot be read.
    """
    scores = read_variants(records, folder, column.name, column.truth)
    pairs = {one: best for one, best in against.items() if one in scores and best in scores}
    if not pairs:
        every = len({r.variant for r in records})
        return [
            f"Over test items nothing is compared: {len(scores)} of {every} variants have predictions, and the best one and another must. "
            "Let `ftlab predict` write them, and copy predictions.jsonl into the folder of each run; docs/howto/report.md has the commands."
        ]
    towards: Direction = "maximize" if column.truth is not None else direction
    found = {one: compare_items(scores[one], scores[best], towards) for one, best in pairs.items()}
    p_values = holm([c.p for c in found.values()])
    return [_sentence(name, pairs[name], c, p, towards) for (name, c), p in zip(found.items(), p_values, strict=True)]


def _sentence(name: str, best: str, found: ItemComparison, p: float | None, direction: Direction) -> str:
    interval = found.over_both or found.over_rows
    parts = [
        f"difference {found.difference:+.4g}",
        f"95 % interval {interval.low:+.4g} to {interval.high:+.4g}",
    ]
    parts += [f"p {probability(p)} by Holm"] if p is not None else []
    tests = ", ".join(f"{probability(t.p_holm)} with seed {seed}" for seed, t in found.mcnemar.items())
    parts += [f"McNemar's p {tests}"] if tests else []
    many = f"{number(found.rows)} test items and {len(found.seeds)} seeds"
    return " ".join([f"Over {many}, {name} against {best}: {verdict(p, found.difference, direction)} ({'; '.join(parts)}).", *found.notes])
