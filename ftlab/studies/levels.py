"""The levels of a factor and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ftlab.errors import ConfigError
from ftlab.studies.canonical import canonical, digest_of, flat
from ftlab.studies.spec import Factor, Level
from ftlab.studies.taking import shown, typed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a run, and so a variant and a study, may be called."""
_LONGEST = 32
"""Characters of one level within a name; a name has room for two whole ones and shortened ones."""
_WHOLE = 2**53
"""Whole numbers below it are written without a point, however they are spelled."""

RESERVED = {
    "seed_everything": "the study's own seeds",
    "run.root": "the study's folder",
    "run.name": "the variant's name",
    "run.id": "the trial's name",
    "run.study": "the study's name",
    "run.variant": "the variant's name",
    "config": "base",
    "ckpt_path": "the trial's own checkpoints",
    "trainer.default_root_dir": "the study's folder",
}
"""Key of a configuration → what the study sets it to."""


def factor(name: str, value: object) -> Factor:
    """A factor as the study file has it: a key with a list of values, or a name with variants that set several keys.

    Raises:
        ConfigError: It varies nothing, or its levels cannot be told apart.
    """
    where = f"factors.{name}"
    if isinstance(value, Mapping):
        levels = [_named(str(label), settings, where) for label, settings in value.items()]
    elif isinstance(value, list):
        levels = [_valued(name, each) for each in value]
        for key in {key for level in levels for key in level.settings}:
            check_key(key, where)
    else:
        raise ConfigError(f"{where} is {shown(value)}; write a list of values, or names with the keys that each sets.")
    return checked(Factor(name=name, levels=tuple(levels)), where)


def checked(found: Factor, where: str) -> Factor:
    """A factor whose levels differ.

    Raises:
        ConfigError: It has none, one, or only equal ones; or two have one name.
    """
    if not found.levels:
        raise ConfigError(f"{where} has no level, so that nothing is left to run; list at least two, or leave it out.")
    kinds = {digest_of(settled(level.settings)) for level in found.levels}
    if len(kinds) == 1:
        count = "one level" if len(found.levels) == 1 else f"{len(found.levels)} levels that are the same setting"
        raise ConfigError(f"{where} changes nothing: it has {count}; list values that differ, or move the key to set.")
    words: dict[str, Level] = {}
    for level in found.levels:
        other = words.setdefault(level.word.casefold(), level)
        same = settled(other.settings) == settled(level.settings)  # in another spelling it runs once, and that is said
        if other is not level and same and repr(other.settings) == repr(level.settings):
            raise ConfigError(f"{where} has {level.label} twice; keep one of them.")
        if not same:
            raise ConfigError(f"{where}: two levels would both be called {level.word}; give them names (name: {{key: value}}).")
    return found


def settled(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings in their one spelling."""
    return {key: canonical(value, key) for key, value in settings.items()}


def check_key(key: str, where: str) -> None:
    """Refuse a key that the study itself sets."""
    if key in RESERVED:
        raise ConfigError(f"{where}: {key} is set by the study itself ({RESERVED[key]}); remove it.")


def settings_of(value: object, where: str) -> dict[str, object]:
    """Dotted key → value as a study file has them, each class and its arguments apart.

    Raises:
        ConfigError: It is no mapping, or a key is set twice.
    """
    found: dict[str, object] = {}
    for key, inner in typed({} if value is None else value, dict, where).items():
        for leaf, each in flat(str(key), inner).items():
            check_key(leaf, where)
            if leaf in found:
                raise ConfigError(f"{where} sets {leaf} twice; keep one of them.")
            found[leaf] = each
    return found


def _named(label: str, value: object, where: str) -> Level:
    if not NAME.fullmatch(label):
        raise ConfigError(f"{where} names a variant {label!a}; use letters, digits, '.', '_' and '-', at most 64, a letter or digit first.")
    return Level(label=label, word=label, settings=settings_of(value, f"{where}.{label}"))


def _valued(key: str, value: object) -> Level:
    label = label_of(value, key)
    bare = value is None or isinstance(value, bool) or _number(value, key) is not None
    short = key.rpartition(".")[2]
    gap = "-" if value is None or isinstance(value, bool) else ""
    return Level(label=label, word=f"{short}{gap}{label}" if bare else label, settings=flat(key, value))


def label_of(value: object, key: str = "") -> str:
    """A short name for a value, of characters that a run's name may have, the same however the value is spelled.

    Args:
        value: As the study file has it.
        key: The dotted key under which it stands.
    """
    text = _text(value, key)
    if _number(value, key) is not None:
        return text.replace("+", "")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")
    if safe == text and len(text) <= _LONGEST:
        return text
    return f"{safe[: _LONGEST - 5] or 'value'}-{digest_of(value)[:4]}"  # what was replaced or cut must not make two the same


def _number(value: object, key: str) -> float | None:
    """The number that a value is, also one that YAML takes for text."""
    found = canonical(value, key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _text(value: object, key: str = "") -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping) and "class_path" in value:
        return "-".join([_text(value["class_path"]), *_fields(value.get("init_args") or {})])
    if isinstance(value, Mapping):
        return "-".join(_fields(value)) or "empty"
    if isinstance(value, list):
        return "-".join(_text(each, key) for each in value) or "empty"
    if (number := _number(value, key)) is not None:
        return str(int(number)) if number == number // 1 and abs(number) < _WHOLE else str(number)
    if isinstance(value, str) and all(part.isidentifier() for part in value.split(".")):
        last = value.rpartition(".")[2]
        return last if last[0].isupper() else value  # a class goes without its module; train.jsonl is no class
    return str(value)


def _fields(value: Mapping[object, object]) -> list[str]:
    return sorted(f"{name}{_text(each)}" for name, each in value.items())
