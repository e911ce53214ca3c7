"""What a user wrote, from configuration files and options, as dotted keys and plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab import strict_yaml
from ftlab.errors import ConfigError

SLOTS = {"model.task": "tasks", "model.tuning": "strategies", "data.source": "data"}
"""Keys that hold a plugin → the plugin's kind."""

CONFIG_OPTIONS = ("--config", "-c")
COMMAND_LINE = "command line"

_ALONE = ("help", "print_config")
"""Options that may stand without a value."""


@dataclass(frozen=True)
class Given:
    """One value as the user wrote it: dotted key, value, and where it stands."""

    key: str
    value: Any
    origin: str


def given(arguments: Sequence[str]) -> list[Given]:
    """Every value that configuration files and options set, in order of precedence, the weakest first.

    Raises:
        ConfigError: A configuration file cannot be read, or a word is no option.
    """
    found: list[Given] = []
    for option, value in _options(arguments):
        if option in CONFIG_OPTIONS:
            if value is None:
                raise ConfigError("--config needs a file; write --config path.yaml.")
            found += flat(strict_yaml.read(Path(value)), "", value)
        elif option.startswith("--"):
            found += _from_option(option[2:], value)
    return found


def take(arguments: Sequence[str], option: str) -> tuple[list[str], list[str]]:
    """Arguments without `option`, and its values.

    Raises:
        ConfigError: It stands without a value.
    """
    rest: list[str] = []
    values: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == option:
            value = next(words, None)
            if value is None:
                raise ConfigError(f"{option} needs a value; write {option} VALUE.")
            values.append(value)
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, values


def flat(value: dict[Any, Any], prefix: str, origin: str) -> Iterator[Given]:
    """Leaves of a configuration; lists and the insides of classes other than plugins stay whole."""
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if key in SLOTS and isinstance(inner, dict):
            yield from _slot(key, inner, origin)
        elif isinstance(inner, dict) and inner and not inner.keys() & {"class_path", "init_args"}:
            yield from flat(inner, f"{key}.", origin)
        else:
            yield Given(key, inner, origin)


def _slot(key: str, value: dict[Any, Any], origin: str) -> Iterator[Given]:
    """The class path of a plugin, then its fields, each whole."""
    if "class_path" in value:
        yield Given(f"{key}.class_path", value["class_path"], origin)
    for name, inner in value.items():
        if name == "init_args" and isinstance(inner, dict):
            yield from (Given(f"{key}.init_args.{field}", v, origin) for field, v in inner.items())
        elif name != "class_path":
            yield Given(f"{key}.{name}", inner, origin)


def _from_option(key: str, text: str | None) -> Iterator[Given]:
    if text is None and key.rpartition(".")[2] not in _ALONE:
        raise ConfigError(f"--{key} needs a value; write --{key} VALUE.")
    value = None if text is None else strict_yaml.value(text, f"--{key}")
    if isinstance(value, dict):
        yield from flat({key: value}, "", COMMAND_LINE)
    else:
        yield Given(key, value, COMMAND_LINE)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(option, value): `--a=b`, `--a b`, and `--a` alone."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not word.startswith("-"):
            raise ConfigError(f"'{word}' stands where an option was expected; write --key value, and quote a value that has spaces.")
        name, equals, value = word.partition("=")
        if equals:
            yield name, value
        elif position < len(arguments) and not arguments[position].startswith("--"):
            yield name, arguments[position]
            position += 1
        else:
            yield name, None
