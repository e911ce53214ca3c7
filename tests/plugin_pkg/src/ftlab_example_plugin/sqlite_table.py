"""Rows of SQLite tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ftlab.data.sources.base import DataSource
from ftlab.errors import ConfigError, DataError, suggest
from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class SqliteTable(DataSource):
    """Rows of an SQLite database, one table for a split, in the order of their row ids.

    Args:
        path: The database, which is only read.
        tables: Split → table.
    """

    path: str
    tables: dict[str, str]

    def __post_init__(self) -> None:
        if not self.tables:
            raise ConfigError("data.source.tables is empty; name a table for every split: {train: sentences}.")

    def splits(self) -> tuple[str, ...]:
        return tuple(self.tables)

    def rows(self, split: str) -> Iterator[Row]:
        if not Path(self.path).is_file():
            raise DataError(f"data.source.path {self.path} does not exist; check the path and the folder you are in.")
        uri = f"{Path(self.path).resolve().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                yield from self._rows(database, self.tables[split])
        except sqlite3.Error as error:
            raise DataError(f"{self.path}, split '{split}' cannot be read ({error}); name a database and tables with row ids.") from error

    def _rows(self, database: sqlite3.Connection, table: str) -> Iterator[Row]:
        known = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        if table not in known:
            raise DataError(f"{self.path} has no table '{table}'; {suggest(table, known)}")
        quoted = '"' + table.replace('"', '""') + '"'
        cursor = database.execute(f"SELECT * FROM {quoted} ORDER BY rowid")
        columns = [column for column, *_ in cursor.description]
        for values in cursor:
            yield dict(zip(columns, values, strict=True))
