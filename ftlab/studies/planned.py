"""The trials that a study asks for: those that tune a variant, drawn before the first of them runs, and those that are compared."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ftlab.studies.records import Phase
from ftlab.studies.space import distributions, drawn, space_of, trials_of
from ftlab.studies.spec import Dimension, StudySpec
from ftlab.studies.storage import jsonable
from ftlab.studies.variants import Variant, trial_key

_PATIENCE = 16
"""Draws for each point of a finite space, after which those that never came are taken in order."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A trial before it runs.

    Args:
        key: Hash of variant, settings, seed and phase.
        variant: Name of what is compared.
        levels: Factor → level.
        phase: What it is for.
        seed: `seed_everything` of the run.
        id: Of the run.
        settings: Dotted key → value, where the run differs from the base.
        tuned: The part of `settings` that tuning chose.
        params: What Optuna drew, in its own values.
    """

    key: str
    variant: str
    levels: Mapping[str, str]
    phase: Phase
    seed: int
    id: str
    settings: Mapping[str, object]
    tuned: Mapping[str, object]
    params: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """What the storage keeps."""
        return dict(jsonable(asdict(self)))


def tuning(spec: StudySpec, variant: Variant) -> list[Planned]:
    """A variant's trials of tuning, each once, in the order of their numbers.

    They are points of a scrambled Sobol' sequence (Sobol' 1967; Owen 1995), which a seed determines: what is tried depends neither on
    what was found before nor on how many workers there are or when one of them died, and variants with one space are offered the same.
    A point that came before is passed over; a space with no more points than trials is searched whole.
    """
    space = dict(sorted(space_of(spec, variant).items()))  # a dimension of the sequence belongs to a name, whatever the file's order
    if spec.tune is None or not space:
        return []
    found: dict[str, Planned] = {}
    for params in _points(space, spec.tune.seed):
        one = _planned(variant, "tune", spec.tune.seed, f"tune-{len(found)}", drawn(space, params), params)
        found.setdefault(one.key, one)
        if len(found) == trials_of(spec, variant):
            break
    return list(found.values())


def compared(spec: StudySpec, variant: Variant, tuned: Mapping[str, object]) -> list[Planned]:
    """A variant's trials that are compared, one for each seed."""
    return [_planned(variant, "seeds", seed, f"seed-{seed}", tuned) for seed in spec.seeds]


def in_turns(rows: Iterable[Sequence[Planned]]) -> list[Planned]:
    """The first of every variant, then the second of every variant: what is known at any time is known of all of them."""
    lists = list(rows)
    return [row[place] for place in range(max(map(len, lists), default=0)) for row in lists if place < len(row)]


def _planned(
    variant: Variant, phase: Phase, seed: int, identity: str, tuned: Mapping[str, object], params: Mapping[str, Any] | None = None
) -> Planned:
    settings = {**variant.settings, **tuned}
    return Planned(
        key=trial_key(variant.name, settings, seed, phase), variant=variant.name, levels=variant.levels, phase=phase, seed=seed,
        id=identity, settings=settings, tuned=dict(tuned), params=params or {},
    )  # fmt: skip


def _points(space: Mapping[str, Dimension], seed: int) -> Iterator[dict[str, Any]]:
    """Points of a space, some of them again; of one with a finite number of points every one in the end."""
    values = [_values(each) for each in space.values()]
    finite = [each for each in values if each is not None]
    if len(finite) < len(values):
        yield from _draws(distributions(space), seed)
        return
    yield from itertools.islice(_draws(distributions(space), seed), _PATIENCE * math.prod(map(len, finite)))
    yield from (dict(zip(space, point, strict=True)) for point in itertools.product(*finite))


def _values(of: Dimension) -> Sequence[Any] | None:
    """What Optuna may draw of one dimension; None where that is real numbers."""
    if of.kind == "choice":
        return [str(place) for place in range(len(of.choices))]
    return range(int(of.low), int(of.high) + 1) if of.kind == "int" else None


def _draws(space: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # since 3.0
        sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed)
    study = optuna.create_study(sampler=sampler)
    study.add_trial(optuna.create_trial(params=_any(space), distributions=dict(space), value=0.0))  # tells the sampler its space
    while True:
        yield dict(study.ask(dict(space)).params)


def _any(space: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the space."""
    return {key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in space.items()}
