"""What is wrong with a configuration, found before anything is imported for it, loaded or downloaded.

The parser checks types. Here names are checked: of plugins, of keys, of classes that may be built; each wrong one gets a
sentence with the nearest right ones.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab import registry, strict_yaml
from ftlab.errors import ConfigError, SecurityError, suggest

SLOTS = {"model.task": "tasks", "model.tuning": "strategies", "data.source": "data"}
"""Keys that hold a plugin → the plugin's kind."""

ALLOWED = (
    "bitsandbytes.optim",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.cli.ReduceLROnPlateau",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.optim",
    "torchmetrics",
)
"""What a configuration may name beside plugins; everything else is not even imported."""

DENIED = ("lightning.pytorch.callbacks.LambdaCallback", "lightning.pytorch.callbacks.lambda_function")
"""Takes any callable."""


@dataclass(frozen=True)
class Given:
    """One value as the user wrote it: dotted key, value, and where it stands."""

    key: str
    value: Any
    origin: str


def given(arguments: Sequence[str]) -> list[Given]:
    """Every value that configuration files and options set, in order of precedence, the weakest first.

    Raises:
        ConfigError: A configuration file cannot be read.
    """
    found: list[Given] = []
    for option, value in _options(arguments):
        if option in ("--config", "-c"):
            if value is None:
                raise ConfigError("--config needs a file; write --config path.yaml.")
            found += _flat(strict_yaml.read(Path(value)), "", value)
        elif option.startswith("--"):
            found.append(Given(option[2:], value, "command line"))
    return found


def check(values: Sequence[Given], known: Collection[str]) -> None:
    """Check names, and import the plugins that are named.

    Args:
        values: What `given` returned.
        known: The keys that the parser has.

    Raises:
        ConfigError: A key or a plugin does not exist.
        SecurityError: A class outside the allow-list is named.
    """
    chosen: dict[str, type] = {}
    for item in values:
        slot = next((s for s in SLOTS if item.key == s or item.key.startswith(f"{s}.")), None)
        if slot is not None:
            _check_slot(item, slot, chosen)
        else:
            _check_key(item, known)
            _check_classes(item)


def _check_slot(item: Given, slot: str, chosen: dict[str, type]) -> None:
    inner = item.key[len(slot) + 1 :].removeprefix("init_args.")
    if inner in ("", "class_path"):
        if not isinstance(item.value, str):
            raise ConfigError(f"{slot} is {item.value!r}; write the name of one of {SLOTS[slot]}: {_names(SLOTS[slot])}.")
        plugin = _find(item.value, slot)
        chosen[slot] = registry.load(plugin)
        return
    if inner.startswith("help"):
        return
    field = inner.partition(".")[0].removesuffix("+")
    cls = chosen.get(slot)
    if cls is None:
        return  # the parser says that the slot itself is not set
    fields = [f.name for f in dataclasses.fields(cls) if f.init]
    if field not in fields:
        raise ConfigError(f"{slot}.{field} is not a field of {cls.__name__}; {suggest(field, fields)}")


def _find(name: str, slot: str) -> registry.Plugin:
    kind = SLOTS[slot]
    if any(name in (p.name, p.class_path) for p in (*registry.plugins(kind), *registry.faulty(kind))):
        return registry.find(name, kind)
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        raise SecurityError(
            f"{slot} names the class {name}, which is neither an installed plugin nor given by --plugin; "
            f"install its package, add --plugin, or use one of: {_names(kind)}."
        )
    # As ASCII, so that a look-alike letter shows.
    names = [p.name for p in registry.plugins(kind)]
    raise ConfigError(f"{slot} is {name!a}, which is not one of the {kind} installed; {suggest(name, names)}")


def _names(kind: str) -> str:
    return ", ".join(p.name for p in registry.plugins(kind))


def _check_key(item: Given, known: Collection[str]) -> None:
    key = item.key.removesuffix("+")
    parts = key.split(".")
    prefixes = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    if prefixes & set(known) or any(k.startswith(f"{key}.") for k in known) or parts[-1] in ("help", "class_path"):
        return
    parent = next((p for p in sorted(prefixes, key=len, reverse=True) if any(k.startswith(f"{p}.") for k in known)), "")
    raise ConfigError(f"{key} is not a key ({item.origin}); {_siblings(key, parent, known)}")


def _siblings(key: str, parent: str, known: Collection[str]) -> str:
    start = f"{parent}." if parent else ""
    names = {start + k[len(start) :].partition(".")[0] for k in known if k.startswith(start)}
    return suggest(key, names | {k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]})


def _check_classes(item: Given) -> None:
    for path in _class_paths(item.key, item.value):
        if "." not in path:
            continue  # short names are looked up among classes that are already imported
        allowed = any(path == a or path.startswith(f"{a}.") for a in ALLOWED) and not any(path.startswith(d) for d in DENIED)
        if not allowed:
            raise SecurityError(
                f"{item.key} names {path}, which a configuration may not name; allowed are installed plugins, "
                f"--plugin, and classes under {', '.join(ALLOWED)}."
            )


def _class_paths(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _class_paths(str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths("", inner)
    elif isinstance(value, str) and (key.endswith("class_path") or key == "model.optimizer"):
        yield value


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(option, value): `--a=b`, `--a b`, and `--a` alone."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif position < len(arguments) and not arguments[position].startswith("--"):
            yield name, arguments[position]
            position += 1
        else:
            yield name, None


def _flat(value: dict[Any, Any], prefix: str, origin: str) -> Iterator[Given]:
    """Leaves of a configuration; lists and the insides of classes other than plugins stay whole."""
    for name, inner in value.items():
        key = f"{prefix}{name}"
        plugin = key in SLOTS and isinstance(inner, dict)
        if plugin and "class_path" in inner:
            yield Given(f"{key}.class_path", inner["class_path"], origin)
        whole = not isinstance(inner, dict) or ("class_path" in inner and not plugin) or not inner
        if whole and not plugin:
            yield Given(key, inner, origin)
        elif isinstance(inner, dict):
            rest = {k: v for k, v in inner.items() if not (plugin and k == "class_path")}
            in_plugin = any(key == f"{slot}.init_args" or key.startswith(f"{slot}.init_args.") for slot in SLOTS)
            if in_plugin:
                yield from (Given(f"{key}.{k}", v, origin) for k, v in rest.items())
            else:
                yield from _flat(rest, f"{key}.", origin)


def shown(arguments: Sequence[str]) -> str:
    """A command line as a person would type it."""
    return shlex.join(arguments)
