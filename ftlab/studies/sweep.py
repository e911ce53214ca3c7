"""A study as a sweep of W&B: its agent calls `ftlab fit` with the values that the sweep sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import ConfigError, suggest
from ftlab.given import SLOTS
from ftlab.keys import CLASS_KEYS
from ftlab.run_folder import write_text
from ftlab.studies.canonical import spelled, whole
from ftlab.studies.space import space_of, trials_of
from ftlab.studies.spec import Dimension, StudySpec
from ftlab.studies.variants import Variant, variants
from ftlab.studies.words import ordered

_CLASSES = {*SLOTS, *CLASS_KEYS}
_DISTRIBUTIONS = {"log_uniform": "log_uniform_values", "uniform": "uniform", "int": "int_uniform"}


def write_sweep(spec: StudySpec, folder: Path, only: str | None = None) -> Path:
    """Write `sweep.yaml` and one configuration per variant beside it; a sweep chooses among them with `--config`.

    Args:
        spec: The study.
        folder: Where they go.
        only: The one variant to search; None takes all.

    Returns:
        The file for `wandb sweep`.

    Raises:
        ConfigError: There is no such variant, or variants are searched in spaces of their own, which one sweep cannot hold.
    """
    chosen = _chosen(variants(spec), only)
    spaces = [space_of(spec, variant) for variant in chosen]
    other = next((v.name for v, space in zip(chosen, spaces, strict=True) if space != spaces[0]), None)
    if other is not None:
        raise ConfigError(f"tune searches {other} in another space than {chosen[0].name}; write a sweep for each with --variant NAME.")
    (folder / "variants").mkdir(parents=True, exist_ok=True)
    files = []
    for variant in chosen:
        files.append(str((folder / "variants" / f"{variant.name}.yaml").resolve()))
        names = {"run.study": spec.name, "run.variant": variant.name, "run.name": variant.name}
        write_text(Path(files[-1]), yaml.safe_dump(nested({**spelled(variant.settings), **names}, spec.base_content), sort_keys=False))
    sweep = _sweep(spec, files, spaces[0], sum(trials_of(spec, variant) for variant in chosen))
    write_text(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False))
    return folder / "sweep.yaml"


def _chosen(found: list[Variant], only: str | None) -> list[Variant]:
    chosen = [variant for variant in found if only in (None, variant.name)]
    if not chosen:
        raise ConfigError(f"--variant is {only}, which the study has not; {suggest(str(only), [v.name for v in found])}")
    return chosen


def _sweep(spec: StudySpec, files: list[str], space: Mapping[str, Dimension], trials: int) -> dict[str, Any]:
    seeds = [spec.tune.seed] if spec.tune else list(spec.seeds)
    parameters = {"config": {"values": files}, "seed_everything": {"values": seeds}}
    plugins = [word for target in spec.plugins for word in ("--plugin", target)]
    found: dict[str, Any] = {
        "name": spec.name,
        "program": "ftlab",
        "method": "random" if space else "grid",
        "metric": {"name": spec.metric, "goal": spec.direction},
        "parameters": {**parameters, **{key: _parameter(key, dimension) for key, dimension in space.items()}},
        "command": ["${env}", "ftlab", "fit", *plugins, "--config", str(spec.base), "--trainer.logger", "WandbLogger", "${args}"],
    }
    return {**found, "run_cap": trials} if space else found


def _parameter(key: str, dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choice":
        return {"values": [json.dumps(value) if _has_null(value) else whole(value, key) for value in dimension.choices]}
    number = int if dimension.kind == "int" else float
    return {"distribution": _DISTRIBUTIONS[dimension.kind], "min": number(dimension.low), "max": number(dimension.high)}


def _has_null(value: object) -> bool:
    """Whether None is in a value, which the agent would write as Python does and YAML does not."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value is None or any(map(_has_null, inner))


def nested(settings: Mapping[str, object], base: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted settings as a configuration file has them, the arguments of a class below its `init_args`.

    Args:
        settings: Dotted key → value.
        base: The configuration that the file is laid over, whose classes stay where no setting names another.
    """
    found: dict[str, Any] = {}
    for key, value in ordered(settings).items():
        path = key.split(".")
        place: dict[str, Any] = found
        below: object = base
        for depth, name in enumerate(path[:-1], start=1):
            held = below.get(name, {}) if isinstance(below, Mapping) else {}
            slot = place.setdefault(name, {})
            if ".".join(path[:depth]) in _CLASSES:
                slot = place[name] = _class(slot, held)
                slot, held = slot["init_args"], {}
            place, below = slot, held
        place[path[-1]] = value
    return found


def _class(named: object, held: object) -> dict[str, Any]:
    """A class with room for its arguments: the one that is named, else the base's."""
    chosen = named or held
    entry = dict(chosen) if isinstance(chosen, Mapping) else {"class_path": chosen}
    return {"class_path": entry["class_path"], "init_args": entry.get("init_args", {}) if named else {}}
