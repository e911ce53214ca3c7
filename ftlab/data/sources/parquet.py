"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.files import opened, refuse_bad_text
from ftlab.errors import DataError
from ftlab.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Parquet(FileSource):
    """Rows from Parquet files, as plain Python values.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
    """

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
