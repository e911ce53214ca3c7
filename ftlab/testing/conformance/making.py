"""Strategies from plain types, by the parser of `ftlab fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.plugin_modules import import_given
from ftlab.strategies.base import TuningStrategy


def made(class_path: str, arguments: Mapping[str, object]) -> TuningStrategy:
    """A strategy as `ftlab fit` would make it from YAML.

    Args:
        class_path: Of a class that is installed or given by `--plugin`.
        arguments: Its `init_args`, as plain types.

    Raises:
        ConfigError: It does not take them.
    """
    from ftlab.cli import Parser, restrict_imports
    from ftlab.module import FinetuneModule

    restrict_imports()
    parser = Parser(allow_abbrev=False)
    parser.add_lightning_class_args(FinetuneModule, "model")
    tuning = {"class_path": class_path, "init_args": dict(arguments)}
    model = {"backbone": {"name": "none"}, "task": {"class_path": "ftlab.tasks.causal_lm.CausalLM"}, "tuning": tuning}
    found: TuningStrategy = parser.instantiate(parser.parse_object({"model": model})).model.tuning
    return found


def find(target: str) -> type[TuningStrategy]:
    """The class that a command line means.

    Args:
        target: `package.module:Class`, `file.py:Class`, or a name as `ftlab list` shows it.

    Raises:
        ConfigError: There is none.
        PluginError: It cannot be imported.
    """
    if ":" not in target:
        found: type[TuningStrategy] = registry.load(registry.find(target, "strategies"))
        return found
    place, _, name = target.rpartition(":")
    registry.use(place)
    kind: Any = getattr(import_given(place), name, None)
    if not (isinstance(kind, type) and issubclass(kind, TuningStrategy)):
        raise ConfigError(f"{place} has no strategy '{name}'; name a class that derives from TuningStrategy.")
    return kind


def example(kind: type[TuningStrategy], arguments: Mapping[str, Any]) -> TuningStrategy:
    """A strategy to check: with the arguments, and the class's own example where it needs more."""
    for inner in _class_paths(kind.traits.example):
        registry.load(registry.find(inner, "strategies"))
    return made(f"{kind.__module__}.{kind.__qualname__}", {**kind.traits.example, **arguments})


def _class_paths(value: object) -> list[str]:
    if isinstance(value, Mapping):
        own = [str(value["class_path"])] if "class_path" in value else []
        return own + [path for inner in value.values() for path in _class_paths(inner)]
    return [path for inner in value for path in _class_paths(inner)] if isinstance(value, list | tuple) else []
