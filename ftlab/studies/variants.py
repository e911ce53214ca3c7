"""The variants of a study: the product of its factors, less what is skipped, each once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ftlab.errors import ConfigError, suggest
from ftlab.studies.canonical import canonical, digest_of
from ftlab.studies.levels import settled
from ftlab.studies.records import Phase
from ftlab.studies.spec import Level, StudySpec

_LONGEST = 64
"""Characters of a run's name."""
WHOLE = "base"
"""The name of the one variant of a study without factors."""
_MOST = 10_000
"""Combinations; more are a mistake rather than a study."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is compared.

    Args:
        name: Made of its levels; the name of its runs.
        levels: Factor → label of its level.
        settings: Dotted key → value, where its runs differ from the base; a class and its arguments are apart.
        chosen: The keys among them that a factor sets → that factor.
    """

    name: str
    levels: dict[str, str]
    settings: dict[str, object]
    chosen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Left:
    """A combination that does not run.

    Args:
        name: What it would be called.
        levels: Factor → label of its level.
        why: The reason; the name of the same variant where it is an alias.
    """

    name: str
    levels: dict[str, str]
    why: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What comes of the factors.

    Args:
        variants: Each with settings of its own.
        skipped: What `skip` leaves out, and why.
        aliases: What is the same as a variant before it, and which.
    """

    variants: list[Variant]
    skipped: list[Left]
    aliases: list[Left]


def variants(spec: StudySpec) -> list[Variant]:
    """What is compared, in the order of the factors' levels.

    Raises:
        ConfigError: Nothing is left, or factors contradict each other.
    """
    return plan(spec).variants


def plan(spec: StudySpec) -> Plan:
    """The variants, and what is left out.

    Raises:
        ConfigError: Nothing is left, or factors contradict each other.
    """
    found = Plan(variants=[], skipped=[], aliases=[])
    known: dict[str, str] = {}
    used: set[int] = set()
    kinds = {(f.name, level.label): digest_of(settled(level.settings)) for f in spec.factors for level in f.levels}
    left_out = [{(name, kinds[name, label]) for name, label in skip.levels.items()} for skip in spec.skip]
    for levels in _combinations(spec):
        labels = {name: level.label for name, level in levels.items()}
        here = {(name, kinds[name, label]) for name, label in labels.items()}  # 1e-3 is skipped with 0.001
        skip = next((place for place, wanted in enumerate(left_out) if wanted <= here), None)
        if skip is not None:
            used.add(skip)
            found.skipped.append(Left(name=_name(levels), levels=labels, why=spec.skip[skip].why))
            continue
        one = _variant(levels, spec.set)
        key = digest_of(settled(one.settings))
        if key in known:
            found.aliases.append(Left(name=one.name, levels=labels, why=known[key]))
        else:
            known[key] = one.name
            found.variants.append(one)
    _check(spec, found, used)
    return found


def trial_key(variant: str, settings: Mapping[str, object], seed: int, phase: Phase) -> str:
    """A hash that is the same for the same trial, however numbers are spelled and keys are ordered.

    Args:
        variant: Its name: tuning may choose for one variant what is another's, and each of them is compared.
        settings: Dotted key → value, with what tuning chose.
        seed: `seed_everything`.
        phase: What the trial is for.
    """
    return digest_of([variant, settled(settings), seed, phase])


def _combinations(spec: StudySpec) -> Iterator[dict[str, Level]]:
    levels = {f.name: f.levels for f in spec.factors}
    zipped = {name: group for group in spec.zip for name in group}
    groups = dict.fromkeys(zipped.get(name, (name,)) for name in levels)
    axes = [[dict(zip(group, row, strict=True)) for row in zip(*(levels[n] for n in group), strict=True)] for group in groups]
    count = math.prod(map(len, axes))
    if count > _MOST:
        raise ConfigError(f"factors give {count} combinations; a study has at most {_MOST}, so use zip or fewer levels.")
    for rows in itertools.product(*axes):
        together = {name: level for row in rows for name, level in row.items()}
        yield {name: together[name] for name in levels}


def _variant(levels: Mapping[str, Level], shared: Mapping[str, object]) -> Variant:
    chosen: dict[str, str] = {}
    settings: dict[str, object] = {}
    for name, level in levels.items():
        for key, value in level.settings.items():
            if key in settings and canonical(settings[key], key) != canonical(value, key):
                both = f"factors.{chosen[key]} and factors.{name} both set {key}"
                raise ConfigError(f"{both}; leave it to one of them, or skip the combination.")
            settings[key], chosen[key] = value, name
    labels = {name: level.label for name, level in levels.items()}
    kept = {key: value for key, value in shared.items() if not _of_other_class(key, shared, settings)}
    return Variant(name=_name(levels), levels=labels, settings={**kept, **settings}, chosen=chosen)


def _of_other_class(key: str, shared: Mapping[str, object], settings: Mapping[str, object]) -> bool:
    """Whether a key that `set` has is an argument of a class in whose place a factor puts another."""
    owners = (k for k in settings if key.startswith(f"{k}.") and k in shared)
    return any(canonical(settings[k], k) != canonical(shared[k], k) for k in owners)


def _name(levels: Mapping[str, Level]) -> str:
    """The levels' words, cut where they are too long; a hash then tells apart what was cut."""
    words = [level.word for level in levels.values()]
    name = "-".join(words) or WHOLE
    name = name if name[0].isalnum() else f"v{name}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 5]}-{digest_of(words)[:4]}"


def _check(spec: StudySpec, found: Plan, used: set[int]) -> None:
    for number, skip in enumerate(spec.skip):
        if number not in used:
            told = ", ".join(f"{k}: {v}" for k, v in skip.levels.items())
            raise ConfigError(f"skip[{number}] ({told}) leaves nothing out that is not left out already; remove it.")
    if not found.variants:
        raise ConfigError(f"skip leaves out all {len(found.skipped)} combinations of factors, so that nothing is left to run; remove one.")
    names: set[str] = set()
    for one in found.variants:
        if one.name.casefold() in names:  # folders on some systems do not tell cases apart
            raise ConfigError(f"two variants would both be called {one.name}; give their levels other names (name: {{key: value}}).")
        names.add(one.name.casefold())
    for name in spec.tune.per if spec.tune else ():
        known = [*(v.name for v in found.variants), *(level.label for f in spec.factors for level in f.levels)]
        if name not in known:
            raise ConfigError(f"tune.per.{name} is neither a variant nor a level; {suggest(name, known)}")
