"""YAML as a configuration needs it: one mapping, no key twice, no tags, no bombs, and errors with a line number."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import ConfigError

_LARGEST = 1 << 20
"""Bytes of a configuration file; the longest sensible ones have a few kilobytes."""
_DEEPEST = 50
_NULLS = ("", "~", "null")
"""What means null; a lone `&x` or `# x`, which YAML reads as null too, does not."""


class _RefusedError(yaml.MarkedYAMLError):
    """YAML that is well formed and not taken."""


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys and aliases, both of which hide what is run."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _RefusedError(problem="an alias (*name) is not allowed; write the value out", problem_mark=event.start_mark)
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > _DEEPEST:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _RefusedError(problem=f"nested more than {_DEEPEST} levels deep", problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(problem="a key is not a single word", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' stands here and on line {seen[key.value]}; keep one of them"
                raise _RefusedError(problem=problem, problem_mark=key.start_mark)
            seen[str(key.value)] = line
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a configuration file.

    Raises:
        ConfigError: It cannot be read; the message names the file and, where there is one, the line.
    """
    try:
        raw = _bytes(path)
        value = yaml.load(raw.decode("utf-8-sig"), _Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; name a YAML file.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"--config {path}, line {line} is not UTF-8; save the file as UTF-8.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--config {path}{_place(error)}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--config {path} holds {_kind(value)}, not key: value pairs; write keys such as model, data and trainer.")
    return value


def value(text: str, option: str) -> Any:
    """What an option's text means: a mapping, a list or a number where it is written as one, else the text itself.

    Raises:
        ConfigError: It has a key twice, an alias inside a mapping, or is nested too deep.
    """
    try:
        found = yaml.load(text, _Loader)  # a SafeLoader
    except _RefusedError as error:
        if text.lstrip()[:1] in ("{", "["):
            raise ConfigError(f"{option}: {error.problem}.") from error
        return text
    except (yaml.YAMLError, ValueError):
        return text
    return text if found is None and text.strip().lower() not in _NULLS else found


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"--config {path} is not a regular file; name a YAML file.")
    if status.st_size > _LARGEST:
        raise ConfigError(f"--config {path} is larger than {_LARGEST} bytes; a configuration is a short YAML file.")
    return path.read_bytes()


def _kind(value: object) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else f"only {value!r:.60}"


def _place(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}: " if mark else ": "
        return f"{where}{error.problem or error.context}."
    return f" is not YAML: {error}."
