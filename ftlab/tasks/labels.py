"""Reading labels: names, ids, lists of them, one column per label, or numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence

from ftlab.errors import DataError, suggest
from ftlab.rows import Row

log = logging.getLogger(__name__)

_MOST_MISSING = 1000
"""Ids without a row that a set of labels may have; more of them are another column's numbers."""


def value_of(row: Row, column: str, number: int) -> object:
    """What a column holds.

    Raises:
        DataError: The column is missing or empty.
    """
    if column not in row:
        raise DataError(f"row {number} has no column '{column}'; {suggest(column, row)}")
    value = row[column]
    if value is None or value == "":
        raise DataError(f"row {number}, column '{column}' is empty; fill it or remove the row.")
    return value


class OneKind:
    """Tells whether all labels of a column are names, or whole numbers, or true and false."""

    def __init__(self) -> None:
        self._first: tuple[type, int] | None = None

    def check(self, value: object, number: int) -> None:
        """Compare a row's label with the first one.

        Raises:
            DataError: It is of another kind.
        """
        kind, row = self._first = self._first or (type(value), number)
        if type(value) is not kind:
            others = _KINDS.get(kind, kind.__name__)
            raise DataError(f"row {number} has the label {value!r:.60} while others, from row {row}, are {others}; use one kind of label.")


_KINDS = {str: "names", int: "whole numbers", bool: "true or false"}


def collect(values: Iterable[tuple[int, object]], gaps: bool = True) -> tuple[str, ...]:
    """The set of labels in sorted order, names made of digits by their value.

    Args:
        values: (number of the row, its label).
        gaps: Whether whole numbers stand for all ids up to the largest, those without a row too, and not for themselves alone.

    Raises:
        DataError: Names and ids are mixed, a value is neither, there are fewer than two labels, or ids that cannot be counted from 0.
    """
    names: dict[str, int] = {}
    ids: dict[int, int] = {}
    kinds = OneKind()
    for number, value in values:
        if not isinstance(value, str | int):
            raise DataError(f"row {number} has the label {value!r}; a label is a name or a whole number (else set model.task.kind).")
        kinds.check(value, number)  # as text, true and 'True' would be one label
        if type(value) is int:
            ids.setdefault(value, number)
        else:
            names.setdefault(str(value), number)
    found = _counted(ids) if ids and gaps else [str(i) for i in sorted(ids)] or sorted(names, key=_by_value)
    if len(found) < 2:
        raise DataError(f"the training rows have the labels {found}; there must be at least two, or set model.task.kind to regression.")
    return tuple(found)


def _counted(ids: Mapping[int, int]) -> list[str]:
    """All ids up to the largest, from id → the first row that has it."""
    least, most = min(ids), max(ids)
    if least < 0:
        raise DataError(f"row {ids[least]} has the label {least}; ids are counted from 0.")
    missing = most + 1 - len(ids)
    if missing > _MOST_MISSING:
        raise DataError(
            f"row {ids[most]} has the label {most}, which as an id makes {most + 1} labels, of which {missing} have no training row; "
            "name another column, or list model.task.labels."
        )
    if missing:
        first = next(i for i in range(most) if i not in ids)
        log.warning(
            "%d of %d label ids have no training row, such as %d; list model.task.labels if they are no labels", missing, most + 1, first
        )
    return [str(i) for i in range(most + 1)]


def _by_value(name: str) -> tuple[bool, int, str]:
    """Numbers first and in their own order: a table without types gives them as text, where 10 comes before 2."""
    number = name.isascii() and name.isdecimal()
    return not number, int(name) if number else 0, name


def label_id(value: object, labels: Sequence[str], number: int) -> int:
    """The id of a label given by name, or by id where no name is a number itself.

    Raises:
        DataError: It is outside the set.
    """
    name = str(value)
    if name in labels:
        return labels.index(name)
    # With names such as 1 to 5, a 0 taken for an id would be the label 1.
    if name.isascii() and name.isdecimal() and int(name) < len(labels) and not any(label.isdecimal() for label in labels):
        return int(name)
    raise DataError(f"row {number} has the label '{name}', which is not in the set of {len(labels)}; {suggest(name, labels)}")


def flag_of(value: object, column: str, number: int) -> float:
    """0 or 1, as it stands in a column of one label of several.

    Raises:
        DataError: It is neither.
    """
    result = float(value) if isinstance(value, bool) else number_of(value, column, number)
    if result not in (0.0, 1.0):
        raise DataError(f"row {number}, column '{column}' holds {value!r}; with a list of label columns each is 0 or 1, so mend the row.")
    return result


def number_of(value: object, column: str, number: int) -> float:
    """A finite float.

    Raises:
        DataError: It is none.
    """
    try:
        result = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # whatever it refuses is told below
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise DataError(f"row {number}, column '{column}' holds {value!r}, not a finite number; mend the row.")
    return result
