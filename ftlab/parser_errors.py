"""The parser's error messages as one sentence: which key, what it was, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ftlab import registry
from ftlab.preflight import SLOTS, Given

_TYPE_NAMES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'str'>": "text",
    "<class 'bool'>": "true or false",
    "<class 'NoneType'>": "null",
}
_KEY = re.compile(r'Parser key "([^"]+)":')
_REQUIRED = re.compile(r"arguments are required: (.+)")
_EXPECTED = re.compile(r"Expected an? (.+?)(?:\. Got value: |$)", re.MULTILINE)
_VALUE = re.compile(r"(?:Got value|Given value): (.*)")


def explained(message: str, values: Sequence[Given]) -> str:
    """One sentence for a message of the parser.

    Args:
        message: What jsonargparse said, over many lines.
        values: What the user gave, to find the full key.
    """
    required = _REQUIRED.search(message)
    if required:
        return _missing(required.group(1))
    key = _KEY.search(message)
    if key:
        return _wrong_type(message, key.group(1), values)
    return " ".join(message.split())[:500]


def _missing(names: str) -> str:
    keys = [name.strip().partition(".")[2] for name in names.split(",")]
    slots = [f"{k} takes one of {', '.join(p.name for p in registry.plugins(SLOTS[k]))}" for k in keys if k in SLOTS]
    choices = f"; {'; '.join(slots)}" if slots else ""
    return f"{' and '.join(keys)} must be set{choices}."


def _wrong_type(message: str, key: str, values: Sequence[Given]) -> str:
    found = _VALUE.search(message)
    value = found.group(1).strip() if found else ""
    full = _full_key(key, value, values)
    expected = [_TYPE_NAMES.get(e.strip(), e.strip()) for e in _EXPECTED.findall(message) if "path" not in e]
    wanted = " or ".join(dict.fromkeys(expected))
    if not wanted:
        tail = " ".join(line.strip(" -") for line in message.splitlines()[1:] if line.strip())
        return f"{full}: {tail[:400]}"
    return f"{full} is {value!r}; it must be {wanted}."


def _full_key(key: str, value: str, values: Sequence[Given]) -> str:
    """The key as the user knows it: the parser drops what stands before a class's own fields."""
    names = [v.key.replace(".init_args", "") for v in values]
    same = [n for n, v in zip(names, values, strict=True) if n.endswith(f".{key}") and str(v.value) == value]
    close = [n for n in names if n == key or n.endswith(f".{key}")]
    return (same or close or [key])[-1].replace(".init_args", "")
