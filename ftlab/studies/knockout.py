"""Knock-out: the whole of a list, the list without each of its parts, and each part alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlab.errors import ConfigError, suggest
from ftlab.studies.canonical import canonical, flat
from ftlab.studies.levels import checked, label_of
from ftlab.studies.spec import Factor, Level
from ftlab.studies.taking import shown

NAME = "knockout"
"""The factor's name."""
WHOLE = "whole"
WITHOUT = "without-"
ALONE = "only-"
"""Its levels: the whole, and what stands before the name of a part that is left out or alone."""

_TUNING = "model.tuning"
_PARTS = f"{_TUNING}.strategies"
_RATES = f"{_TUNING}.rates"
_COMPOSE = "ftlab.strategies.compose.Compose"


def knocked_out(key: str, base: Mapping[str, object], shared: Mapping[str, object]) -> Factor:
    """The factor whose levels are the whole, each leave-one-out and each alone.

    Args:
        key: A key whose value is a list, or `model.tuning` where it is Compose.
        base: The base configuration.
        shared: What the study sets for all runs.

    Raises:
        ConfigError: There is no list of at least two parts.
    """
    known = {**{k: v for name, value in base.items() for k, v in flat(name, value).items()}, **shared}
    composed = key in (_TUNING, _PARTS) and canonical(known.get(_TUNING), _TUNING) == _COMPOSE
    key = _PARTS if composed else key
    parts = known.get(key)
    if not isinstance(parts, list):
        lists = [k for k, v in known.items() if isinstance(v, list) and len(v) > 1]
        was = f"is {shown(parts)} in the base" if key in known else "the base does not set"
        advice = suggest(key, lists) if lists else "the base has no list of two parts or more."
        raise ConfigError(f"knockout is {key}, which {was}; it must be a list there, or Compose: {advice}")
    if len(parts) < 2:
        raise ConfigError(f"knockout is {key}, whose list has {len(parts)} parts; leaving one out needs at least two.")
    if composed and known.get(_RATES) is not None:
        raise ConfigError(f"knockout leaves out parts of Compose, and {_RATES} gives each a rate of its own; remove the rates.")
    names = _names(parts)
    levels = [_level(WHOLE, {key: parts})]
    for kind in (WITHOUT, ALONE):
        for place, name in enumerate(names):
            kept = [p for n, p in enumerate(parts) if (n == place) == (kind == ALONE)]
            levels.append(_level(f"{kind}{name}", _alone(kept[0]) if composed and len(kept) == 1 else {key: kept}))
    return checked(Factor(name=NAME, levels=tuple(levels)), NAME)


def _level(label: str, settings: dict[str, object]) -> Level:
    return Level(label=label, word=label, settings=settings)


def _alone(part: object) -> dict[str, object]:
    """One strategy by itself: Compose takes two or more."""
    return flat(_TUNING, part)


def _names(parts: Sequence[object]) -> list[str]:
    """A name for each part: its class where that tells them apart, then with its arguments, else its place in the list."""
    whole = [label_of(part) for part in parts]
    classes = [label_of(p["class_path"]) if isinstance(p, Mapping) and "class_path" in p else w for p, w in zip(parts, whole, strict=True)]
    places = [f"{name}-{place}" for place, name in enumerate(classes, start=1)]
    return next(names for names in (classes, whole, places) if len({n.casefold() for n in names}) == len(parts))
