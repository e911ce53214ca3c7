"""One spelling for what can be spelled in several ways, so that equal settings have equal hashes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ftlab import registry, source
from ftlab.given import SLOTS
from ftlab.keys import CLASS_KEYS, known, parameter
from ftlab.scope import UnreadableError

_DIGITS = 16
"""Hexadecimal digits of a hash: two of a million trials share one with a chance below 1e-7."""
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TEXTS = {"str", "Path", "list", "tuple", "Sequence", "dict", "Mapping"}
"""Words of the type of a key that takes no number."""

_WHOLES = {"int", "list", "tuple", "Sequence"}
"""Words of the type of a key that takes whole numbers."""


class _Text(str):
    """Text that looks like a number and is none, also where its key is no longer known."""

    __slots__ = ()


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
        return _number(value, key) if (named := _class(value, key)) is None else named
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


def _number(text: str, key: str) -> object:
    """YAML reads 1e-3 as text, which a parser with a type takes as the number that it is.

    What may be meant as text stays text: 12e4567 is a commit, and 1.10 is another version than 1.1.
    """
    if isinstance(text, _Text) or not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    if not math.isfinite(number) or len(text) > len(repr(number)) or _takes_text(key):
        return _Text(text)
    return canonical(number)


def _takes_text(key: str) -> bool:
    """Whether a key takes text and no number, as far as the source of its class says."""
    types = [set(re.findall(r"\w+", each.type)) - {"None", "Optional"} for each in _parameters(key)]
    return bool(types) and all("str" in words and words <= _TEXTS for words in types)


def spelled(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings that a study file names, as `ftlab fit` takes them; not what is drawn from a range, where 4.0 is no whole number.

    Args:
        settings: Dotted key → value.
    """
    return {key: whole(value, key) for key, value in settings.items()}


def whole(value: object, key: str) -> object:
    """A value as `ftlab fit` takes it: 4 for 4.0 where a key takes whole numbers and no others, which there are one value's spellings.

    Args:
        value: As YAML holds it.
        key: The dotted key under which it stands.
    """
    if isinstance(value, list | tuple):
        return [whole(each, key) for each in value]
    if isinstance(value, float | str) and isinstance(found := canonical(value, key), float) and found.is_integer() and _takes_whole(key):
        return int(found)
    return value


def _takes_whole(key: str) -> bool:
    """Whether a key takes whole numbers and no others; 1.0 is all batches where 1 is one."""
    types = [set(re.findall(r"\w+", each.type)) - {"None", "Optional"} for each in _parameters(key)]
    return bool(types) and all("int" in words and words <= _WHOLES for words in types)


def _parameters(key: str) -> Iterator[source.Parameter]:
    """What a key may be: an argument of a section, or of any plugin that may stand in its slot."""
    with suppress(UnreadableError):
        if (found := parameter(key)) is not None:
            yield found
    slot, _, name = key.rpartition(".")
    for plugin in registry.plugins(SLOTS[slot]) if slot in SLOTS else ():
        with suppress(UnreadableError):
            yield from (each for each in source.read(plugin.class_path).parameters if each.name == name)
