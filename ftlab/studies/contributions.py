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
    """

    name: str
    whole: str
    without: str
    alone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a part adds, seed by seed, with the metric's own sign.

    Args:
        part: Its name.
        to_whole: The whole against all but this part: "better" says that the part helps the others.
        by_itself: This part alone against the whole: "worse" says that the others are needed. None where it was not run alone.
    """

    part: str
    to_whole: Comparison
    by_itself: Comparison | None


def parts_of(records: Iterable[TrialRecord]) -> list[Part]:
    """The parts of a study that has `knockout`, for each combination of its other factors.

    Args:
        records: Of one study.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, TrialRecord]] = {}
    for record in records:
        if NAME in record.levels:
            rest = tuple((factor, level) for factor, level in record.levels.items() if factor != NAME)
            groups.setdefault(rest, {}).setdefault(record.levels[NAME], record)
    return [part for rest, first in groups.items() for part in _parts(first, ", ".join(level for _, level in rest))]


def _parts(first: Mapping[str, TrialRecord], rest: str) -> list[Part]:
    """The parts of one combination.

    Args:
        first: Level of the knock-out → a trial with it.
        rest: The levels of the other factors, in words.
    """
    names = [level.removeprefix(WITHOUT) for level in first if level.startswith(WITHOUT)]
    if WHOLE not in first:
        return []
    found = []
    for name in names:
        without, alone = first[f"{WITHOUT}{name}"], first.get(f"{ALONE}{name}")
        if alone is None and len(names) == 2 and _of_two(first[WHOLE], without):
            alone = next(first[f"{WITHOUT}{other}"] for other in names if other != name)
        shown = f"{name} ({rest})" if rest else name
        found.append(Part(name=shown, whole=first[WHOLE].variant, without=without.variant, alone=alone.variant if alone else None))
    return found


def _of_two(whole: TrialRecord, without: TrialRecord) -> bool:
    """Whether the whole has two parts: one without the other is then that one alone, and such a variant runs once."""
    lists = {key: value for key, value in whole.settings.items() if key not in whole.tuned and isinstance(value, list | tuple)}
    return [len(value) for key, value in lists.items() if without.settings.get(key) != value] == [2]


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
    singles = [(part.alone, part.whole) for part in parts if part.alone is not None]
    found = compare_pairs(records, [*pairs, *singles], direction)
    added, alone = found[: len(parts)], iter(found[len(parts) :])
    return [
        Contribution(part=part.name, to_whole=whole, by_itself=None if part.alone is None else next(alone))
        for part, whole in zip(parts, added, strict=True)
    ]
