"""What is wrong with a configuration, found before anything is imported for it, loaded or downloaded.

The parser checks types. Here names are checked: of plugins, of keys, of classes that may be built; each wrong one gets a
sentence with the nearest right ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ftlab import redact, registry, source
from ftlab.errors import ConfigError, SecurityError, nearest, suggest
from ftlab.given import COMMAND_LINE, SLOTS, Given
from ftlab.keys import CLASS_KEYS, Keys, known
from ftlab.scope import UnreadableError

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


def check(values: Sequence[Given], command: str) -> list[registry.Plugin]:
    """Check every name that a user wrote.

    Args:
        values: What `given` returned.
        command: fit, validate, test or predict.

    Returns:
        The plugins that are named, also those that a later value replaces.

    Raises:
        ConfigError: A key or a plugin does not exist, null stands where it is no value, or a secret is written down.
        SecurityError: A class outside the allow-list is named.
    """
    keys = known(command)
    chosen: dict[str, registry.Plugin] = {}
    named: list[registry.Plugin] = []
    for item in values:
        _refuse_secret(item)
        slot = next((s for s in SLOTS if item.key == s or item.key.startswith(f"{s}.")), None)
        if slot is not None:
            named += _check_slot(item, slot, chosen)
        else:
            _check_key(item, keys)
            _check_classes(item)
    return list(dict.fromkeys(named))


def _refuse_secret(item: Given) -> None:
    key = redact.secret_in(item.value, item.key)
    if key is not None:
        raise ConfigError(
            f"{key} holds what looks like a token or password; remove it and set HF_TOKEN or WANDB_API_KEY in the environment."
        )


def _check_slot(item: Given, slot: str, chosen: dict[str, registry.Plugin]) -> list[registry.Plugin]:
    """Check one value below a slot; returns the plugin that it names, if it names one."""
    inner = item.key[len(slot) + 1 :]
    if inner in ("", "class_path"):
        chosen[slot] = _find(item.value, slot)
        return [chosen[slot]]
    if inner == "help":
        return [] if item.value is None else [_find(item.value, slot)]
    if slot not in chosen:
        raise ConfigError(f"{item.key} is set before {slot} names a class; set {slot} first, to one of: {_names(SLOTS[slot])}.")
    field = inner.removeprefix("init_args.").removesuffix("+")
    if inner == field and item.origin != COMMAND_LINE:
        raise ConfigError(f"{item.key} stands beside class_path ({item.origin}); fields stand under {slot}.init_args.")
    _check_field(field, item.value, slot, chosen[slot])
    return list(_check_nested(item.value, f"{slot}.{field}", slot))


def _check_nested(value: Any, key: str, slot: str) -> Iterator[registry.Plugin]:
    """Check the plugins that stand inside a field of a plugin; returns those that are named."""
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from _check_nested(each, f"{key}[{place}]", slot)
    elif isinstance(value, dict) and "class_path" in value:
        plugin = _find(value["class_path"], slot, key)
        yield plugin
        fields = value.get("init_args") or {}
        for name, inner in (fields if isinstance(fields, dict) else {}).items():
            _check_field(str(name), inner, key, plugin)
            yield from _check_nested(inner, f"{key}.{name}", slot)


def _check_field(field: str, value: Any, slot: str, plugin: registry.Plugin) -> None:
    fields = _fields(plugin)
    name = field.partition(".")[0]
    if name not in fields:
        raise ConfigError(f"{slot}.{name} is not a field of {plugin.name}; {suggest(name, fields)}")
    if value is None and field == name and not fields[name]:
        raise ConfigError(f"{slot}.{name} is null, which is not one of its values; `ftlab describe {plugin.name}` lists them.")


def _fields(plugin: registry.Plugin) -> dict[str, bool]:
    """Field of a plugin → whether null is one of its values."""
    try:
        return {p.name: p.nullable for p in source.read(plugin.class_path).parameters}
    except UnreadableError:  # a class without source text can only be asked itself
        return {f.name: True for f in dataclasses.fields(registry.load(plugin)) if f.init}


def _find(name: Any, slot: str, key: str = "") -> registry.Plugin:
    kind, key = SLOTS[slot], key or slot
    if not isinstance(name, str):
        raise ConfigError(f"{key} is {'null' if name is None else repr(name)}; write the name of one of {kind}: {_names(kind)}.")
    if any(name in (p.name, p.class_path) for p in (*registry.plugins(kind), *registry.faulty(kind))):
        return registry.find(name, kind)
    if _is_path(name):
        raise SecurityError(
            f"{key} names the class {name}, which is neither an installed plugin nor given by --plugin; "
            f"install its package, add --plugin, or use one of: {_names(kind)}."
        )
    # As ASCII, so that a look-alike letter shows.
    names = [p.name for p in registry.plugins(kind)]
    raise ConfigError(f"{key} is {name!a}, which is not one of the {kind} installed; {suggest(name, names)}")


def _names(kind: str) -> str:
    return ", ".join(p.name for p in registry.plugins(kind))


def _check_key(item: Given, keys: Keys) -> None:
    key = item.key.removesuffix("+")
    owner = keys.owner(key)
    group = keys.below(key)
    if group and not isinstance(item.value, dict):
        raise ConfigError(f"{key} is {'null' if item.value is None else repr(item.value)}; it holds keys of its own: {', '.join(group)}.")
    if owner == key and item.value is None and not keys.leaves[key]:
        raise ConfigError(f"{key} is null, which is not one of its values; leave it out for its default.")
    inside_a_class = owner in CLASS_KEYS or key.rpartition(".")[2] == "help"
    if owner == key or group or inside_a_class:
        return
    raise ConfigError(f"{key} is not a key ({item.origin}); {_nearest_keys(key, keys)}")


def _nearest_keys(key: str, keys: Keys) -> str:
    elsewhere = [k for k in keys.leaves if k.rpartition(".")[2] == key.rpartition(".")[2]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    parent = _known_parent(key, keys)
    start = f"{parent}." if parent else ""
    wrong, _, rest = key.removeprefix(start).partition(".")
    close = [f"{start}{name}" for name in nearest(wrong, keys.below(parent))]
    if not close:
        return f"allowed: {', '.join(start + name for name in keys.below(parent))}."
    return f"did you mean {' or '.join(f'{k}.{rest}' if rest and keys.owner(f'{k}.{rest}') else k for k in close)}?"


def _known_parent(key: str, keys: Keys) -> str:
    parts = key.split(".")
    return next((p for i in range(len(parts) - 1, 0, -1) if keys.below(p := ".".join(parts[:i]))), "")


def _check_classes(item: Given) -> None:
    key = item.key.removesuffix("+")
    for path in _class_paths(key, item.value):
        denied = any(path in (d, d.rpartition(".")[2]) or path.startswith(f"{d}.") for d in DENIED)
        allowed = any(path.startswith(f"{a}.") for a in ALLOWED)
        if denied or (_is_path(path) and not allowed):
            raise SecurityError(
                f"{key} names {path}, which a configuration may not name; allowed are installed plugins, "
                f"--plugin, and classes under {', '.join(ALLOWED)}."
            )
        if key == "model.metrics" and _is_path(path) and not path.startswith("torchmetrics."):
            raise ConfigError(f"model.metrics names {path}; metrics are classes of torchmetrics, so name one of those.")
    slot = key.removesuffix(".class_path").removesuffix(".help")
    for name in _short_names(slot, item.value):
        names = source.exports(CLASS_KEYS[slot])
        if name not in names:
            raise ConfigError(f"{slot} is {name!a}, which is not a class of {CLASS_KEYS[key]}; {suggest(name, names)}")


def _class_paths(key: str, value: Any) -> Iterator[str]:
    """Whatever stands where a class may be named."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _class_paths(str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(key, inner)
    elif isinstance(value, str) and (key in CLASS_KEYS or key.rpartition(".")[2] in ("class_path", "help")):
        yield value


def _short_names(key: str, value: Any) -> Iterator[str]:
    """Class names without a module, where only one package can be meant."""
    if not CLASS_KEYS.get(key):
        return
    for entry in value if isinstance(value, list) else [value]:
        name = entry.get("class_path") if isinstance(entry, dict) else entry
        if isinstance(name, str) and "." not in name and name not in ("null", "true", "false"):
            yield name


def _is_path(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)
