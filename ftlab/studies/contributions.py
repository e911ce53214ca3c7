"""What each part of a knock-out adds: to the whole, and alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ftlab.studies.comparisons import Comparison, compare_pairs
from ftlab.studies.knockout import ALONE, NAME, WHOLE, WITHOUT
from ftlab.studies.records import TrialRecord
from ftlab.studies.statistics import Direction


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of what is knocked out, and the variants that tell of it.

    Args:
        name: Of the part.
        whole: Variant with all parts.
        without: Variant with all parts but this one.
        alone: Variant with this part only, if it was run.
        none: Variant with no part, if it was run.
    """

    name: str
    whole: str
    without: str
    alone: str | None = None
    none: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a part adds, seed by seed, with the metric's own sign.

    Args:
        part: Its name.
        to_whole: The whole against all but this part: "better" says that the part helps the others.
        by_itself: This part alone against none: "better" says that it helps without the others. Where none was not run, against the
            whole: "worse" says that the others are needed. None where it was not run alone.
    """

    part: str
    to_whole: Comparison
    by_itself: Comparison | None

    def text(self) -> str:
        """The contribution in one sentence."""
        found = [self.to_whole] if self.by_itself is None else [self.to_whole, self.by_itself]
        return f"{self.part}: {' '.join(comparison.text() for comparison in found)}"


def parts_of(records: Iterable[TrialRecord]) -> list[Part]:
    """The parts of a study that has `knockout`, for each combination of its other factors.

    Args:
        records: Of one study.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for record in records:
        if NAME in record.levels:
            rest = tuple((factor, level) for factor, level in record.levels.items() if factor != NAME)
            groups.setdefault(rest, {})[record.levels[NAME]] = record.variant
    return [part for rest, variants in groups.items() for part in _parts(variants, ", ".join(level for _, level in rest))]


def _parts(variants: Mapping[str, str], rest: str) -> list[Part]:
    names = [level.removeprefix(WITHOUT) for level in variants if level.startswith(WITHOUT)]
    if WHOLE not in variants:
        return []
    found = []
    for name in names:
        # Of two parts one without the other is that one alone, and such a variant runs once.
        alone = variants.get(f"{ALONE}{name}") or next((variants[f"{WITHOUT}{n}"] for n in names if n != name and len(names) == 2), None)
        found.append(
            Part(name=f"{name} ({rest})" if rest else name, whole=variants[WHOLE], without=variants[f"{WITHOUT}{name}"], alone=alone)
        )
    return found


def contributions(records: Iterable[TrialRecord], parts: Sequence[Part], direction: Direction) -> list[Contribution]:
    """What each part adds, Holm over all of these comparisons together.

    Args:
        records: Of one study.
        parts: Whose contributions are asked for.
        direction: Of the metric.

    Raises:
        ConfigError: A part names a variant that the study does not have.
    """
    pairs = [(part.whole, part.without) for part in parts]
    singles = {part.name: (part.alone, part.none or part.whole) for part in parts if part.alone is not None}
    found = compare_pairs(records, [*pairs, *singles.values()], direction)
    alone = dict(zip(singles, found[len(parts) :], strict=True))
    return [
        Contribution(part=part.name, to_whole=whole, by_itself=alone.get(part.name))
        for part, whole in zip(parts, found[: len(parts)], strict=True)
    ]
