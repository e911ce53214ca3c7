"""The parser's error messages as one sentence: which key, what it was, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ftlab import registry, source
from ftlab.errors import ConfigError, FtlabError, SecurityError, suggest
from ftlab.given import SLOTS, Given
from ftlab.keys import CLASS_KEYS, parameter
from ftlab.scope import UnreadableError
from ftlab.type_words import wanted

# The grammar of jsonargparse's messages; inner parsers' messages stand inside those of outer ones.
_KEY = re.compile(r'Parser key "([^"]+)"')
_REQUIRED = re.compile(r"arguments are required: (.+?)(?:\. Got value|$)", re.MULTILINE)
_NOT_ACCEPTED = re.compile(r"(?:Option|option) '([^']+)'(?: is not accepted|$)", re.MULTILINE)
_DENIED = re.compile(r"Importing '([^']+)' is not allowed, denied by")
_ABSENT = re.compile(r"module '([^']+)' has no attribute '([^']+)'")
_CLASS = re.compile(r"class_path(?: |=)'([^']+)'")
_SEVERAL = re.compile(r"Multiple subclasses with name (\w+)\.")
_VALUE = re.compile(r"(?:Got value|Given value): (.*)")

_NESTED = "NestedArg("
"""How the parser shows an option of a class that was not named."""
_COMMANDS = ("fit.", "validate.", "test.", "predict.")
_LONGEST = 300
"""Characters of a message that has none of the forms above."""


def refusal(message: str, values: Sequence[Given]) -> FtlabError:
    """The error for a message of the parser.

    Args:
        message: What jsonargparse said, over many lines.
        values: What the user gave, to find what stood under the key.
    """
    key = ".".join(_KEY.findall(message))
    denied = [path for path in _DENIED.findall(message) if path in set(_texts([v.value for v in values]))]
    required, unknown, absent = _REQUIRED.search(message), _NOT_ACCEPTED.search(message), _ABSENT.search(message)
    if denied:
        return _security(key, denied[0])
    if required:
        return ConfigError(_missing(key, required[1]))
    if unknown:
        return ConfigError(_not_accepted(key, unknown[1], message))
    if absent:
        return ConfigError(f"{key} is {absent[1]}.{absent[2]}, which does not exist; {_near(absent[1], absent[2])}")
    if _DENIED.search(message):
        return _security(key, _DENIED.findall(message)[0])
    if key:
        return ConfigError(_wrong_value(key, message, values))
    return ConfigError(" ".join(message.split())[:_LONGEST].rstrip(".") + "; `--help` lists the options.")


def _security(key: str, path: str) -> SecurityError:
    where = key or "the configuration"
    return SecurityError(f"{where} names {path}, which a configuration may not name; use an installed plugin or --plugin.")


def _missing(prefix: str, names: str) -> str:
    keys = []
    for name in names.split(","):
        command = next((c for c in _COMMANDS if name.strip().startswith(c)), "")
        keys.append(f"{prefix}.{name.strip()}" if prefix else name.strip().removeprefix(command))
    slots = [f"{k} takes one of {', '.join(p.name for p in registry.plugins(SLOTS[k]))}" for k in keys if k in SLOTS]
    return f"{' and '.join(keys)} must be set; {'; '.join(slots) or 'write it in the YAML or as an option'}."


def _not_accepted(key: str, name: str, message: str) -> str:
    classes = _CLASS.findall(message)
    if not classes:
        return f"{name} is not a key; `--help` lists the keys."
    return f"{key}.{name} is not an argument of {classes[0].rpartition('.')[2]}; {suggest(name, _arguments(classes[0]))}"


def _arguments(class_path: str) -> list[str]:
    try:
        return [p.name for p in source.read(class_path).parameters]
    except UnreadableError:
        return []


def _near(module: str, name: str) -> str:
    try:
        return suggest(name, source.exports(module))
    except UnreadableError:
        return "check its spelling."


def _wrong_value(key: str, message: str, values: Sequence[Given]) -> str:
    value = _value(key, values, message)
    found = _parameter(key, message)
    several = _SEVERAL.search(message)
    if several and CLASS_KEYS.get(key):
        return f"{key} is '{several[1]}', as more than one imported class is called; write {CLASS_KEYS[key]}.{several[1]}."
    if key in CLASS_KEYS:
        choices = f": {', '.join(source.exports(CLASS_KEYS[key]))}" if CLASS_KEYS[key] else ""
        was = "names no class" if value is None else f"is {value!r:.100}"
        return f"{key} {was}; write class_path, and init_args below it{choices}."
    if found is None or found.annotation is None:
        return f"{key} is {value!r:.100}, which is not one of its values; `--help` describes them."
    return f"{key} is {value!r:.100}; it must be {wanted(found.annotation)}."


def _parameter(key: str, message: str) -> source.Parameter | None:
    classes = _CLASS.findall(message)
    try:
        if classes and len(_KEY.findall(message)) > 1:
            name = key.rpartition(".")[2]
            return next((p for p in source.read(classes[-1]).parameters if p.name == name), None)
        return parameter(key)
    except UnreadableError:
        return None


def _value(key: str, values: Sequence[Given], message: str) -> Any:
    """What the user wrote under a key; what the parser says it was where it stood inside something larger."""
    same = [v.value for v in values if v.key.replace(".init_args.", ".").removesuffix("+") == key]
    if same and not isinstance(same[-1], dict | list):
        return same[-1]
    told = _VALUE.search(message)
    return told[1].strip() if told and not told[1].startswith(_NESTED) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
