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


def collect(values: Iterable[tuple[int, object]]) -> tuple[str, ...]:
    """The set of labels in sorted order; whole numbers become the names of all ids up to the largest.

    Raises:
        DataError: Names and ids are mixed, a value is neither, or there are fewer than two labels.
    """
    names: dict[str, int] = {}
    ids: dict[int, int] = {}
    for number, value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            ids.setdefault(value, number)
        elif isinstance(value, str | bool):
            names.setdefault(str(value), number)
        else:
            raise DataError(f"row {number} has the label {value!r}; a label is a name or a whole number (regression takes model.task.kind).")
    if names and ids:
        name, number = next(iter(names.items()))
        raise DataError(f"row {number} has the label '{name}' while others are whole numbers; use one kind of label.")
    if ids and min(ids) < 0:
        raise DataError(f"row {ids[min(ids)]} has the label {min(ids)}; ids are counted from 0.")
    found = [str(i) for i in range(max(ids) + 1)] if ids else sorted(names)
    if len(found) < 2:
        raise DataError(f"the training rows have the labels {found}; classification needs at least two, regression model.task.kind: regression.")
    return tuple(found)


def label_id(value: object, labels: Sequence[str], number: int) -> int:
    """The id of a label given by name or id.

    Raises:
        DataError: It is outside the set.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    name = str(value)
    if name not in labels:
        raise DataError(f"row {number} has the label '{name}', which is not in the set of {len(labels)}; {suggest(name, labels)}")
    return list(labels).index(name)


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
