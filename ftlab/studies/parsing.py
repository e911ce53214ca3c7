"""A study file, read strictly: every key known, every value of its type, nothing that is code or a place to write to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlab import strict_yaml
from ftlab.errors import ConfigError, suggest
from ftlab.studies.canonical import flat
from ftlab.studies.knockout import knocked_out
from ftlab.studies.levels import NAME, factor, label_of, settings_of, settled
from ftlab.studies.space import LARGEST_SEED, parsed_tune
from ftlab.studies.spec import Factor, Skip, Stop, StudySpec
from ftlab.studies.stop import parsed_stop
from ftlab.studies.taking import at_least, mapping, only, printable, shown, told, typed

KEYS = (
    "name", "base", "factors", "knockout", "skip", "zip", "seeds", "tune", "metric", "direction", "stop",
    "cache_features", "retries", "timeout_minutes", "set",
)  # fmt: skip
"""What a study file may hold."""
_SEEDS = 5


def parsed(path: Path, plugins: tuple[str, ...]) -> StudySpec:
    """What `ftlab.studies.spec.parse` returns."""
    document = strict_yaml.read(path)
    check_keys(document)
    base = (path.resolve().parent / typed(document["base"], str, "base")).resolve()
    with told("base"):
        content = strict_yaml.read(base)
    return understood(document, base, content, plugins)


def check_keys(document: dict[str, Any]) -> None:
    """Refuse a document that cannot be a study, before its base is opened."""
    if "plugins" in document:
        raise ConfigError("plugins stands in the study file, and code never comes from one; give --plugin FILE.py to `ftlab ablate`.")
    only(map(str, document), KEYS, "")
    printable(document, "")
    for key in ("name", "base"):
        if key not in document:
            raise ConfigError(f"{key} is missing; a study needs a name and a base configuration.")


def understood(document: dict[str, Any], base: Path, content: dict[str, Any], plugins: tuple[str, ...] = ()) -> StudySpec:
    """A study from what stands in its files.

    Args:
        document: The study file.
        base: Where the base configuration lies.
        content: What stands in it.
        plugins: What `--plugin` named.

    Raises:
        ConfigError: Names the key, what it was, what is allowed.
    """
    check_keys(document)
    shared = settings_of(document.get("set"), "set")
    factors = _factors(document, content, shared)
    seeds = seeds_of(document)
    tune = parsed_tune(document["tune"], seeds) if document.get("tune") is not None else None
    return StudySpec(
        name=_name(document["name"]), base=base, base_content=content, document=document, factors=factors, seeds=seeds,
        metric=_metric(document.get("metric", "val_loss")), direction=_direction(document.get("direction", "minimize")),
        plugins=plugins, skip=_skips(document.get("skip", []), factors), zip=_zips(document.get("zip", []), factors),
        tune=tune, stop=_stop(document, tune is not None), knockout=document.get("knockout"),
        cache_features=typed(document.get("cache_features", False), bool, "cache_features"),
        retries=at_least(typed(document.get("retries", 1), int, "retries"), 0, "retries"),
        timeout_minutes=_timeout(document.get("timeout_minutes")), set=shared,
    )  # fmt: skip


def _name(value: object) -> str:
    name = typed(value, str, "name")
    if not NAME.fullmatch(name):
        raise ConfigError(f"name is {name!a}; use letters, digits, '.', '_' and '-', at most 64, a letter or digit first.")
    return name


def _factors(document: dict[str, Any], base: dict[str, Any], shared: dict[str, object]) -> tuple[Factor, ...]:
    given = mapping(document["factors"], "factors") if "factors" in document else {}
    found = [factor(name, value) for name, value in given.items()]
    if "knockout" in document:
        if "knockout" in given:
            raise ConfigError("factors.knockout has the name of the factor that knockout makes; choose another.")
        found.append(knocked_out(typed(document["knockout"], str, "knockout"), base, shared))
    return tuple(found)


def seeds_of(document: dict[str, Any]) -> tuple[int, ...]:
    """The seeds that a study file lists or counts."""
    value = document.get("seeds", _SEEDS)
    if isinstance(value, int) and not isinstance(value, bool):
        return tuple(range(at_least(value, 1, "seeds")))
    if not isinstance(value, list) or not value:
        raise ConfigError(f"seeds is {shown(value)}; write how many, or a list of whole numbers.")
    seeds = [at_least(typed(seed, int, "seeds"), 0, "seeds") for seed in value]
    twice = next((seed for place, seed in enumerate(seeds) if seed in seeds[:place]), None)
    if twice is not None:
        raise ConfigError(f"seeds has {twice} twice, which would be one sample counted as two; name each seed once.")
    if max(seeds) > LARGEST_SEED:
        raise ConfigError(f"seeds has {max(seeds)}; a seed is at most {LARGEST_SEED}.")
    return tuple(seeds)


def _metric(value: object) -> str:
    metric = typed(value, str, "metric")
    if not metric.strip():
        raise ConfigError("metric is empty; name a figure that a run logs, such as val_loss.")
    return metric


def _direction(value: object) -> Any:
    if value not in ("minimize", "maximize"):
        raise ConfigError(f"direction is {shown(value)}; it must be minimize or maximize.")
    return value


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    minutes = at_least(typed(value, float, "timeout_minutes"), 0, "timeout_minutes")
    if minutes == 0:
        raise ConfigError("timeout_minutes is 0, which ends every trial at once; set it above 0, or leave it out for no limit.")
    return minutes


def _stop(document: dict[str, Any], tuned: bool) -> Stop | None:
    if document.get("stop") is None:
        return None
    if not tuned:
        raise ConfigError("stop ends trials of tuning early, and this study has no tune; add tune, or remove stop.")
    return parsed_stop(document["stop"])


def _zips(value: object, factors: tuple[Factor, ...]) -> tuple[tuple[str, ...], ...]:
    groups = typed(value, list, "zip")
    known = {f.name: len(f.levels) for f in factors}
    seen: set[str] = set()
    for group in groups:
        if not isinstance(group, list) or len(group) < 2:
            raise ConfigError(f"zip holds {shown(group)}; write lists of at least two factors that advance together, [[a, b]].")
        for name in group:
            if name not in known:
                raise ConfigError(f"zip names {shown(name)}, which is no factor; {suggest(str(name), known)}")
            if name in seen:
                raise ConfigError(f"zip names {name} twice; a factor advances with one group.")
            seen.add(name)
        counts = {name: known[name] for name in group}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ConfigError(f"zip needs as many levels of each factor: {told}.")
    return tuple(map(tuple, groups))


def _skips(value: object, factors: tuple[Factor, ...]) -> tuple[Skip, ...]:
    return tuple(_skip(each, f"skip[{place}]", factors) for place, each in enumerate(typed(value, list, "skip")))


def _skip(value: object, where: str, factors: tuple[Factor, ...]) -> Skip:
    entry = mapping(value, where)
    why = entry.pop("why", None)
    if not isinstance(why, str) or not why.strip():
        raise ConfigError(f"{where}.why is {shown(why)}; say why the combination is left out.")
    if not entry:
        raise ConfigError(f"{where} names no factor; write {{factor: level, why: reason}}.")
    known = {f.name: f for f in factors}
    only(entry, known, where)
    return Skip(levels={name: _level(known[name], level, f"{where}.{name}") for name, level in entry.items()}, why=why)


def _level(of: Factor, value: object, where: str) -> str:
    """The label of the level that a skip means, written as it is in factors."""
    labels = [level.label for level in of.levels]
    meant = settled(flat(of.name, value))
    found = [level.label for level in of.levels if level.label == label_of(value, of.name) or settled(level.settings) == meant]
    if not found:
        raise ConfigError(f"{where} is {shown(value)}, which is no level of it; {suggest(label_of(value, of.name), labels)}")
    return found[0]
