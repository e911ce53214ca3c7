"""Parquet files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.files import opened, refuse_bad_text
from ftlab.errors import DataError
from ftlab.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 1024
_ROWS = base64.b85decode(
    "P(e~L6#x}F6*?>x1{DAm1{DSz00002000060RsR40B>$(0{{R3ba!tB0001VXmVv`6$BY9H2@d}b7N>_ZDADx02K@+0vH5zWq5QY08AVJ000&S85|iLCIB"
    "223>hT`02vqrbY*yS6#y0n7GM@&CJ0F!6#x|g6#@V}78V%>872S*0000MU={`@2o_)fC?IfQa&dKKbS-0Wa4lhSa&LDac4cyNX>V>IGBz$SE-"
    "@J#8~^|ShyVZpP(e~L"
)
"""A file with the texts one, two and three, on which the class is checked."""


@dataclass(frozen=True, kw_only=True)
class Parquet(FileSource):
    """Rows from Parquet files, as plain Python values.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
    """

    sample = Sample(files={"train.parquet": _ROWS}, arguments={"path": "train.parquet"})

    path: str | dict[str, str]

    def read(self, path: str) -> Iterator[Row]:
        """The rows of one file, a batch in memory at a time."""
        number = 0
        for batch in _batches(path):
            for row in _values(batch, path, number):
                number += 1
                refuse_bad_text(row, f"{path}: row {number}")
                yield row


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import parquet

    read = -1
    with opened(path) as file:
        try:
            table = parquet.ParquetFile(file)
            names = table.schema_arrow.names
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise DataError(f"{path} has column '{repeated}' twice; rename one of them.")
            read = 0
            for batch in table.iter_batches(batch_size=_BATCH):
                yield batch
                read += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            what = "is not a Parquet file" if read < 0 else f"is damaged after row {read}"
            raise DataError(f"{path} {what} ({reason}); write it again, or use the source for its format.") from error


def _values(batch: pa.RecordBatch, path: str, before: int) -> list[Row]:
    try:
        rows: list[Row] = batch.to_pylist()
        return rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: row {_undecodable(batch, before)} is not UTF-8 ({error.reason}); mend or remove the row.") from error


def _undecodable(batch: pa.RecordBatch, before: int) -> int:
    for index in range(batch.num_rows):
        try:
            batch.slice(index, 1).to_pylist()
        except UnicodeDecodeError:
            return before + index + 1
    return before
