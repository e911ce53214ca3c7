"""Values of a study file, taken by name and type; what does not fit is one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ftlab.errors import ConfigError, FtlabError, suggest

T = TypeVar("T")

LONGEST = 100
"""Characters of a value within a sentence."""
_WORDS = {bool: "true or false", str: "text", int: "a whole number", float: "a number", dict: "keys and values", list: "a list"}


def typed(value: object, kind: type[T], where: str) -> T:
    """`value` where it is of a type; a whole number is a number too.

    Raises:
        ConfigError: It is not.
    """
    if kind is float and isinstance(value, str):  # YAML reads 1e-3 as text
        with suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} is {shown(value)}; it must be {_WORDS[kind]}.")
    return value


def mapping(value: object, where: str) -> dict[str, Any]:
    """A mapping whose keys are text, not empty."""
    found = typed(value, dict, where)
    if not found:
        raise ConfigError(f"{where} is empty; write keys and values below it, or leave it out.")
    return {str(key): inner for key, inner in found.items()}


def only(names: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Refuse the first name that is not allowed."""
    choices = list(allowed)
    for name in names:
        if name not in choices:
            prefix = f"{where}." if where else ""
            raise ConfigError(f"{prefix}{name} is not a key of a study; {suggest(name, choices)}")


def at_least(value: T, least: float, where: str) -> T:
    """A number that is finite and not below a limit."""
    assert isinstance(value, int | float)
    if not least <= value < float("inf"):
        raise ConfigError(f"{where} is {shown(value)}; it must be at least {least:g}.")
    return value


def printable(value: object, where: str) -> None:
    """Refuse characters that would steer a terminal, wherever text stands."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            printable(key, where)
            printable(inner, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for inner in value:
            printable(inner, where)
    elif isinstance(value, str) and not value.isprintable():
        raise ConfigError(f"{where or 'the study'} holds {value!a:.80}, with a character that cannot be printed; remove it.")


def shown(value: object) -> str:
    """A value within a sentence."""
    return "null" if value is None else f"{value!r:.{LONGEST}}"


@contextmanager
def told(where: str) -> Iterator[None]:
    """Put the part of the study before an error of ftlab."""
    try:
        yield
    except FtlabError as error:
        raise type(error)(f"{where}: {error}") from error
