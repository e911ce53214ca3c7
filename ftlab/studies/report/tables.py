"""One line per trial: `results.csv` for spreadsheets, `results.parquet` for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ftlab.errors import StorageError
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.escaping import csv_cell

if TYPE_CHECKING:
    import pyarrow as pa

_MAPPINGS = ("levels", "settings", "tuned", "metrics")
"""Fields that become a column for each of their keys."""

Columns = dict[str, list[object]]


def columns(records: Sequence[TrialRecord]) -> Columns:
    """Column → a value for each trial; what a trial does not have is None."""
    found: Columns = {}
    for name in (f.name for f in fields(TrialRecord)):
        if name in _MAPPINGS:
            keys = dict.fromkeys(key for record in records for key in getattr(record, name))
            found |= {f"{name}.{key}": [getattr(record, name).get(key) for record in records] for key in keys}
        else:
            found[name] = [getattr(record, name) for record in records]
    return found


def csv_text(records: Sequence[TrialRecord]) -> str:
    """The content of `results.csv`; texts that a spreadsheet would compute begin with an apostrophe."""
    table = columns(records)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in table])
    writer.writerows([csv_cell(_plain(value)) for value in row] for row in zip(*table.values(), strict=True))
    return buffer.getvalue()


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list | tuple) else value


def write_parquet(records: Sequence[TrialRecord], path: Path) -> None:
    """Write `results.parquet`: numbers as numbers, a column whose values are of several types as JSON.

    Raises:
        StorageError: It cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: _array(values) for name, values in columns(records).items()})
    work = path.with_name(f".{path.name}.tmp")
    try:
        pq.write_table(table, work)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written ({error.strerror or error}); free space or choose another folder.") from error


def _array(values: Sequence[object]) -> pa.Array:
    import pyarrow as pa

    there = [v for v in values if v is not None]
    for kind, fits in _KINDS.items():
        if there and all(fits(v) for v in there):
            return pa.array(values, type=getattr(pa, kind)())
    return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], type=pa.string())


_INT64 = 1 << 63
_KINDS: dict[str, Callable[[object], bool]] = {
    "bool_": lambda v: isinstance(v, bool),
    "int64": lambda v: isinstance(v, int) and not isinstance(v, bool) and -_INT64 <= v < _INT64,
    "float64": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}
"""Arrow's type → whether a value fits."""
