"""One spelling for what can be spelled in several ways, so that equal settings have equal hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

from ftlab import registry
from ftlab.given import SLOTS
from ftlab.keys import CLASS_KEYS, known

_DIGITS = 16
"""Hexadecimal digits of a hash: two of a million trials share one with a chance below 1e-7."""


def digest_of(value: object) -> str:
    """A hash of plain values, whatever the order of keys and the spelling of numbers."""
    text = json.dumps(canonical(value), sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def canonical(value: object, key: str = "") -> object:
    """A value in its one spelling.

    Args:
        value: As YAML holds it.
        key: The dotted key under which it stands, which says what a name may mean.
    """
    if isinstance(value, Mapping):
        inner = {str(k): canonical(v, key if k == "class_path" else "") for k, v in value.items()}
        if inner.get("init_args") == {} and "class_path" in inner:
            del inner["init_args"]
        return inner
    if isinstance(value, list | tuple):
        return [canonical(v, key) for v in value]
    if isinstance(value, str):
        return _number(value) if (named := _class(value, key)) is None else named
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)  # YAML has dates


def flat(key: str, value: object) -> dict[str, object]:
    """Dotted key → value, with a section or a class and its arguments under keys of their own, as `ftlab fit` takes them one by one."""
    key = plain(key)
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    inner = value.get("init_args", {})
    if (key in SLOTS or key in CLASS_KEYS) and value.keys() <= {"class_path", "init_args"} and isinstance(inner, Mapping):
        found: dict[str, object] = {key: value["class_path"]} if "class_path" in value else {}
    elif known("fit").below(key):
        found, inner = {}, value
    else:
        return {key: value}
    for name, each in inner.items():
        found.update(flat(f"{key}.{name}", each))
    return found


def plain(key: str) -> str:
    """A dotted key without the words that may be left out."""
    return key.replace(".init_args.", ".").removesuffix(".class_path")


def _class(name: str, key: str) -> str | None:
    slot = next((s for s in SLOTS if key == s or key.startswith(f"{s}.")), None)
    if slot is not None:
        paths = {p.class_path for p in registry.plugins(SLOTS[slot]) if name in (p.name, p.class_path)}
        return paths.pop() if len(paths) == 1 else None
    package = CLASS_KEYS.get(key)
    return f"{package}.{name}" if package and name.isidentifier() else None


def _number(text: str) -> object:
    """YAML reads 1e-3 as text, which a parser with a type takes as the number that it is."""
    with suppress(ValueError):
        return canonical(float(text))
    return text
