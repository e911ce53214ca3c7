"""What a task says of its rows: which split they are of, and again where the tokens come from the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ftlab.errors import DataError
from ftlab.rows import Row


class _PlacedError(DataError):
    """Of a source, which names file and line itself."""


def placed(rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """The rows of a source, whose errors pass `of_split` as they are."""
    try:
        yield from rows
    except DataError as error:
        raise _PlacedError(*error.args) from error


@contextmanager
def of_split(split: str) -> Iterator[None]:
    """Errors of rows name the split, for every split has a row 0."""
    try:
        yield
    except DataError as error:
        if isinstance(error, _PlacedError) or str(error).startswith("split '"):
            raise
        raise DataError(f"split '{split}': {error}") from error


@contextmanager
def heard(kind: type) -> Iterator[list[str]]:
    """The warnings logged meanwhile by ftlab and by the package of a class, such as how many rows were cut."""
    handler = _Ear(logging.WARNING)
    loggers = [logging.getLogger(name) for name in {"ftlab", kind.__module__.partition(".")[0]}]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield handler.said
    finally:
        for each in loggers:
            each.removeHandler(handler)


class _Ear(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
