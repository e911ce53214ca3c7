"""Reading labels: names, ids, lists of them, one column per label, or numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ftlab.errors import DataError, suggest
from ftlab.rows import Row


def value_of(row: Row, column: str, number: int) -> object:
    """What a column holds.

    Raises:
        DataError: The column is missing or empty.
    """
    if column not in row:
        raise DataError(f"row {number} has no column '{column}'; {suggest(column, row)}")
    value = row[column]
    if value is None or value == "":
        raise DataError(f"row {number}, column '{column}' is empty; give it a label or remove the row.")
    return value


class OneKind:
    """Tells whether all labels of a column are names, or whole numbers, or true and false."""

    def __init__(self) -> None:
        self._first: type | None = None

    def check(self, value: object, number: int) -> None:
        """Compare a row's label with the first one.

        Raises:
            DataError: It is of another kind.
        """
        self._first = self._first or type(value)
        if type(value) is not self._first:
            others = _KINDS.get(self._first, self._first.__name__)
            raise DataError(f"row {number} has the label {value!r} while others are {others}; use one kind of label.")


_KINDS = {str: "names", int: "whole numbers", bool: "true or false"}


def collect(values: Iterable[tuple[int, object]]) -> tuple[str, ...]:
    """The set of labels in sorted order, names made of digits by their value; whole numbers stand for all ids up to the largest.

    Raises:
        DataError: Names and ids are mixed, a value is neither, or there are fewer than two labels.
    """
    names: dict[str, int] = {}
    ids: dict[int, int] = {}
    flags = OneKind()
    for number, value in values:
        if isinstance(value, str | bool):
            flags.check(value, number)  # as text, true and 'True' would be one label
        if isinstance(value, int) and not isinstance(value, bool):
            ids.setdefault(value, number)
        elif isinstance(value, str | bool):
            names.setdefault(str(value), number)
        else:
            raise DataError(f"row {number} has the label {value!r}; a label is a name or a whole number (else set model.task.kind).")
    if names and ids:
        name, number = next(iter(names.items()))
        raise DataError(f"row {number} has the label '{name}' while others are whole numbers; use one kind of label.")
    if ids and min(ids) < 0:
        raise DataError(f"row {ids[min(ids)]} has the label {min(ids)}; ids are counted from 0.")
    found = [str(i) for i in range(max(ids) + 1)] if ids else sorted(names, key=_by_value)
    if len(found) < 2:
        raise DataError(f"the training rows have the labels {found}; there must be at least two, or set model.task.kind to regression.")
    return tuple(found)


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
    result = number_of(value, column, number)
    if result not in (0.0, 1.0):
        raise DataError(f"row {number}, column '{column}' holds {value!r}; with a list of label columns each is 0 or 1, so mend the row.")
    return result


def number_of(value: object, column: str, number: int) -> float:
    """A finite float.

    Raises:
        DataError: It is none.
    """
    try:
        result = float(value)  # type: ignore[arg-type]  # whatever float() refuses is reported below
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise DataError(f"row {number}, column '{column}' holds {value!r}, not a finite number; mend the row.")
    return result
