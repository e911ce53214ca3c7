"""Search spaces: as a study file writes them, as a strategy's class declares them, and as Optuna draws from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.studies.canonical import digest_of, flat, plain, spelled
from ftlab.studies.levels import check_key, settled
from ftlab.studies.spec import DECLARED, Dimension, PerVariant, Space, StudySpec, Tune
from ftlab.studies.taking import at_least, mapping, only, shown, typed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from ftlab.studies.variants import Variant

KINDS = ("log_uniform", "uniform", "int", "choice")
_SEED = 1000
"""Of tuning, where the file names none: far from the small numbers that seeds are."""
LARGEST_SEED = 2**32 - 1
"""Of NumPy's generators, from which Optuna draws choices and with which Lightning seeds."""
_DECADE = 10.0
"""Where a class declares no space, its learning rate is searched this factor to both sides."""


def parsed_tune(value: object, seeds: tuple[int, ...]) -> Tune:
    """`tune` as a study file has it.

    Raises:
        ConfigError: Names the key, what it was, what is allowed.
    """
    entry = mapping(value, "tune")
    only(entry, ("trials", "space", "per", "seed"), "tune")
    for key in ("trials", "space"):
        if key not in entry:
            raise ConfigError(f"tune.{key} is missing; tuning needs a number of trials and a space to search.")
    seed = at_least(typed(entry.get("seed", _SEED), int, "tune.seed"), 0, "tune.seed")
    if seed > LARGEST_SEED:
        raise ConfigError(f"tune.seed is {seed}; a seed is at most {LARGEST_SEED}, so choose a smaller one.")
    if seed in seeds:
        raise ConfigError(f"tune.seed is {seed}, one of seeds; what is compared must not have been tuned on, so choose another.")
    per = mapping(entry["per"], "tune.per") if "per" in entry else {}
    return Tune(
        trials=_trials(entry["trials"], "tune.trials"), space=parsed_space(entry["space"], "tune.space"), seed=seed,
        per={name: _per(each, f"tune.per.{name}") for name, each in per.items()},
    )  # fmt: skip


def parsed_space(value: object, where: str) -> Space:
    """A mapping from dotted keys to ranges, or the word `declared`."""
    if value == DECLARED:
        return "declared"
    found: dict[str, Dimension] = {}
    for key, each in mapping(value, where).items():
        check_key(key, where)
        found[plain(key)] = _dimension(key, each, f"{where}.{key}")
    return found


def _trials(value: object, where: str) -> int:
    return at_least(typed(value, int, where), 1, where)


def _per(value: object, where: str) -> PerVariant:
    entry = mapping(value, where)
    only(entry, ("trials", "space"), where)
    trials = _trials(entry["trials"], f"{where}.trials") if "trials" in entry else None
    return PerVariant(trials=trials, space=parsed_space(entry["space"], f"{where}.space") if "space" in entry else None)


def _dimension(key: str, value: object, where: str) -> Dimension:
    entry = mapping(value, where)
    only(entry, KINDS, where)
    if len(entry) != 1:
        raise ConfigError(f"{where} has {' and '.join(entry)}; choose one of them.")
    [(kind, given)] = entry.items()
    values = typed(given, list, f"{where}.{kind}")
    if kind == "choice":
        return _choice(key, values, where)
    number = int if kind == "int" else float
    if len(values) != 2:
        raise ConfigError(f"{where}.{kind} is {shown(values)}; write the smallest and the largest number, [low, high].")
    low, high = (typed(v, number, f"{where}.{kind}") for v in values)
    if not float("-inf") < low < high < float("inf"):
        raise ConfigError(f"{where}.{kind} is {shown(values)}; the first number must be below the second, both finite.")
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(f"{where}.log_uniform begins at {low:g}; a logarithm needs numbers above 0.")
    return Dimension(kind=KINDS[KINDS.index(kind)], low=low, high=high)  # type: ignore[arg-type]  # `only` has seen it


def _choice(key: str, values: list[Any], where: str) -> Dimension:
    if len(values) < 2:
        raise ConfigError(f"{where}.choice is {shown(values)}; list at least two values to choose from.")
    known: dict[str, object] = {}
    for place, value in enumerate(values):
        other = known.setdefault(digest_of(settled(flat(key, value))), value)
        if len(known) == place:
            same = f"{shown(value)} twice" if repr(value) == repr(other) else f"{shown(other)} and {shown(value)}, which are one value"
            raise ConfigError(f"{where}.choice has {same}; keep one of them.")
    return Dimension(kind="choice", choices=tuple(values))


def trials_of(spec: StudySpec, variant: Variant) -> int:
    """How many trials of tuning a variant gets."""
    if spec.tune is None:
        return 0
    return next((per.trials for per in _pers(spec.tune, variant) if per.trials is not None), spec.tune.trials)


def space_of(spec: StudySpec, variant: Variant) -> dict[str, Dimension]:
    """What is searched for a variant; empty without tuning. A declared space imports the strategy's class.

    Raises:
        ConfigError: The variant sets a key that is searched, or two searches do, or the class declares something that is no space.
    """
    if spec.tune is None:
        return {}
    found = _resolved(spec.tune.space, spec, variant)
    for per in reversed(_pers(spec.tune, variant)):
        if per.space is not None:
            found |= _resolved(per.space, spec, variant)
    _check_apart(found, variant)
    return found


def _check_apart(space: Mapping[str, Dimension], variant: Variant) -> None:
    """Refuse a key that two would set; a choice sets the arguments of its classes too."""
    owners: dict[str, str] = {}
    for key, each in space.items():
        for leaf in dict.fromkeys(leaf for value in each.choices or (0,) for leaf in flat(key, value)):
            named = leaf if leaf == key else f"{leaf} in the choices of {key}"
            if leaf in variant.chosen:
                raise ConfigError(f"tune.space has {named}, which {variant.chosen[leaf]} sets in {variant.name}; remove one of them.")
            if owners.setdefault(leaf, key) != key:
                raise ConfigError(f"tune.space has {named}, which {owners[leaf]} searches too; remove one of them.")


def _pers(tune: Tune, variant: Variant) -> list[PerVariant]:
    """What differs for a variant, the most particular first: its own name, then its levels."""
    names = dict.fromkeys((variant.name, *variant.levels.values()))
    return [tune.per[name] for name in names if name in tune.per]


def _resolved(space: Space, spec: StudySpec, variant: Variant) -> dict[str, Dimension]:
    return dict(space) if isinstance(space, Mapping) else declared(_strategy(spec, variant))


def _strategy(spec: StudySpec, variant: Variant) -> str:
    name = variant.settings.get("model.tuning", flat("model", spec.base_content.get("model")).get("model.tuning"))
    if not isinstance(name, str):
        raise ConfigError(f"tune.space is declared, and {variant.name} names no model.tuning that could declare it; set one.")
    return name


def declared(name: str) -> dict[str, Dimension]:
    """The space that a strategy's class declares; where it declares none, a decade to both sides of its learning rate."""
    plugin = registry.find(name, "strategies")
    traits: Any = registry.load(plugin).traits  # type: ignore[attr-defined]  # `load` has checked its contract
    if not traits.space:
        rate = traits.learning_rate
        return {"model.optimizer.lr": Dimension(kind="log_uniform", low=rate / _DECADE, high=rate * _DECADE)}
    space = parsed_space(dict(traits.space), f"{plugin.name}.traits.space")
    return dict(space) if isinstance(space, Mapping) else {}


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """A space as Optuna draws from it; `drawn` turns what it drew into settings."""
    return {key: _distribution(each) for key, each in space.items()}


def _distribution(of: Dimension) -> BaseDistribution:
    from optuna import distributions as optuna

    if of.kind == "choice":
        return optuna.CategoricalDistribution([str(place) for place in range(len(of.choices))])
    if of.kind == "int":
        return optuna.IntDistribution(int(of.low), int(of.high))
    return optuna.FloatDistribution(of.low, of.high, log=of.kind == "log_uniform")


def drawn(space: Mapping[str, Dimension], params: Mapping[str, object]) -> dict[str, object]:
    """Settings for what Optuna drew: a choice is stored as its place in the list, since Optuna takes plain values only."""
    found: dict[str, object] = {}
    for key, value in params.items():
        found |= chosen(key, space[key].choices[int(str(value))]) if space[key].kind == "choice" else {key: value}
    return found


def chosen(key: str, value: object) -> dict[str, object]:
    """Settings for one of the values of a choice.

    Args:
        key: What is searched.
        value: As the study file has it.
    """
    return spelled(flat(key, value))
