"""YAML as a configuration needs it: one mapping, no key twice, no tags, no bombs, and errors with a line number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ftlab.errors import ConfigError

_LARGEST = 1 << 20
"""Bytes of a configuration file; the longest sensible ones have a few kilobytes."""
_DEEPEST = 50


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys and aliases, both of which hide what is run."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not allowed; write the value out", problem_mark=event.start_mark)
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} levels deep", problem_mark=self.peek_event().start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                problem = f"the key '{key.value}' stands here and on line {seen[key.value]}; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[str(key.value)] = line
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a configuration file.

    Raises:
        ConfigError: It cannot be read; the message names the file and, where there is one, the line.
    """
    try:
        raw = path.read_bytes() if path.stat().st_size <= _LARGEST else None
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; name a YAML file.") from error
    if raw is None:
        raise ConfigError(f"--config {path} is larger than {_LARGEST} bytes; a configuration is a short YAML file.")
    try:
        value = yaml.load(raw.decode("utf-8-sig"), _Loader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"--config {path}, line {line} is not UTF-8; save the file as UTF-8.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--config {path}{_place(error)}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--config {path} holds {type(value).__name__ if value is not None else 'nothing'}, not key: value pairs.")
    return value


def _place(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}: " if mark else ": "
        return f"{where}{error.problem or error.context}."
    return f" is not YAML: {error}."
