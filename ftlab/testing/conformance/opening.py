"""What a command line names, as the subject of a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.rows import Row
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.making import example
from ftlab.testing.conformance.sources.subject import SourceSubject, put_files, with_paths
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.tasks.subject import TaskSubject


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says beside the class.

    Args:
        root: A folder for models and other files.
        fields: Arguments of the class.
        family: Of tiny models; None takes the first that fits.
        rows: Of a task; none takes those of its class.
    """

    root: Path
    fields: Mapping[str, Any]
    family: str | None = None
    rows: Sequence[Row] = ()


def _strategy(cls: Any, wanted: Wanted) -> Subject:
    made = example("strategies", cls, {**cls.traits.example, **wanted.fields})
    return Subject(strategy=made, root=wanted.root, chosen=wanted.family)


def _task(cls: Any, wanted: Wanted) -> TaskSubject:
    made = example("tasks", cls, {**cls.sample.arguments, **wanted.fields})
    return TaskSubject(task=made, rows=wanted.rows or cls.sample.rows, root=wanted.root, chosen=wanted.family)


def _source(cls: Any, wanted: Wanted) -> SourceSubject:
    own = not wanted.fields.keys() & cls.sample.arguments.keys()  # else it is the user's own file that is read
    places = put_files(cls.sample.files if own else {}, wanted.root)
    made = example("data", cls, with_paths({**cls.sample.arguments, **wanted.fields}, places))
    return SourceSubject(source=made, files=tuple(path for path in places.values() if path.is_file()), root=wanted.root)


_OPENERS: dict[str, Callable[[Any, Wanted], Examined]] = {"strategies": _strategy, "tasks": _task, "data": _source}


def opened(kind: str, cls: type, wanted: Wanted) -> Examined:
    """The subject of a suite.

    Args:
        kind: In the registry.
        cls: The class.
        wanted: What else the command line says.

    Raises:
        ConfigError: The class refuses its arguments, or has nothing to be measured on.
    """
    return _OPENERS[kind](cls, wanted)
