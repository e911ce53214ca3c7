"""Plugins from plain types, by the parser of `ftlab fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.plugin_modules import import_given

_SLOTS = {"strategies": ("model", "tuning"), "tasks": ("model", "task"), "data": ("data", "source")}
_AROUND: dict[str, dict[str, Any]] = {
    "model": {
        "backbone": {"name": "none"},
        "task": {"class_path": "ftlab.tasks.causal_lm.CausalLM"},
        "tuning": {"class_path": "ftlab.strategies.full.Full"},
    },
    "data": {},
}
"""What a configuration must have beside the plugin."""


def made(class_path: str, arguments: Mapping[str, object], kind: str) -> Any:
    """A plugin as `ftlab fit` would make it from YAML.

    Args:
        class_path: Of a class that is installed or given by `--plugin`.
        arguments: Its `init_args`, as plain types.
        kind: In the registry.

    Raises:
        ConfigError: It does not take them.
    """
    from ftlab.cli import Parser, restrict_imports
    from ftlab.data.datamodule import FinetuneData
    from ftlab.module import FinetuneModule

    group, slot = _SLOTS[kind]
    restrict_imports()
    parser = Parser(allow_abbrev=False)
    parser.add_lightning_class_args(FinetuneModule if group == "model" else FinetuneData, group)
    values = {**_AROUND[group], slot: {"class_path": class_path, "init_args": dict(arguments)}}
    return getattr(parser.instantiate(parser.parse_object({group: values}))[group], slot)


def find(target: str) -> tuple[str, type]:
    """The kind and the class that a command line means.

    Args:
        target: `package.module:Class`, `file.py:Class`, or a name as `ftlab list` shows it.

    Raises:
        ConfigError: There is none.
        PluginError: It cannot be imported.
    """
    if ":" not in target:
        plugin = registry.find(target)
        return plugin.kind, registry.load(plugin)
    place, _, name = target.rpartition(":")
    found = {p.name: p for p in registry.use(place)}
    if name not in found:
        raise ConfigError(f"{place} has no plugin '{name}'; name a class that derives from TuningStrategy, Task or DataSource.")
    plugin, cls = found[name], getattr(import_given(place), name)
    return plugin.kind, cls


def example(kind: str, cls: type, arguments: Mapping[str, Any]) -> Any:
    """A plugin to check, with the classes that stand inside its arguments loaded first."""
    for inner in _class_paths(arguments):
        registry.load(registry.find(inner, kind))
    return made(f"{cls.__module__}.{cls.__qualname__}", arguments, kind)


def _class_paths(value: object) -> list[str]:
    if isinstance(value, Mapping):
        own = [str(value["class_path"])] if "class_path" in value else []
        return own + [path for inner in value.values() for path in _class_paths(inner)]
    return [path for inner in value for path in _class_paths(inner)] if isinstance(value, list | tuple) else []
