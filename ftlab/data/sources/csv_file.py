"""Files of comma- or tab-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.lines import check_encoding, lines
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
# The module's own limit of 131,072 characters refuses long documents; this is the highest that every platform takes.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Csv(FileSource):
    """Rows from CSV or TSV files; every value is text, and blank lines are not rows.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
        delimiter: The character between fields; null takes a comma for .csv and a tab for .tsv and .tab.
        columns: Column names of files without a header; null reads them from the first line.
        quote: The character around fields that hold delimiters; null takes quotes as ordinary characters.
        extra: Whether fields beyond the last column are an error (refuse) or are left out (drop).
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"train.csv": 'text,label\none,0\n"two, three",1\nfour,0\n', "held.csv": "text,label\nfive,1\n"},
        arguments={"path": {"train": "train.csv", "validation": "held.csv"}},
    )

    path: str | dict[str, str]
    delimiter: str | None = None
    columns: list[str] | None = None
    quote: str | None = '"'
    extra: Literal["refuse", "drop"] = "refuse"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)
        for key, value in (("delimiter", self.delimiter), ("quote", self.quote)):
            if value is not None and (len(value) != 1 or value in "\r\n\0"):
                raise ConfigError(f'{key} is {value!r}; give one character, such as "," or "\\t", or null.')
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ConfigError(f"delimiter and quote are both {self.quote!r}; give two different characters.")
        if self.columns is not None and (not self.columns or _repeated(self.columns)):
            raise ConfigError(f"columns is {self.columns}; name every column once, or set it to null to read the header.")
        for split in self.splits():
            self._delimiter(self.file(split))

    def parsing(self, path: str) -> dict[str, object]:
        """What decides which rows come out of the bytes: the fields, and the file's ending where it chooses the delimiter."""
        # The same bytes under another ending are other rows.
        return super().parsing(path) | {"delimiter": self._delimiter(path)}

    def read(self, path: str) -> Iterator[Row]:
        """The records of one file, after its header."""
        columns = self.columns
        for number, values in self._records(path):
            if columns is None:
                columns = values
                if repeated := _repeated(columns):
                    raise DataError(f"{path}: line {number} names column '{repeated}' twice; rename one of them.")
            else:
                yield dict(zip(columns, self._fitted(values, columns, f"{path}: line {number}"), strict=True))

    def _delimiter(self, path: str) -> str:
        found = self.delimiter or next((d for ending, d in _DELIMITERS.items() if path.lower().endswith(ending)), None)
        if found is None:
            raise ConfigError(f"delimiter is null and {path} ends in none of {', '.join(_DELIMITERS)}; set delimiter.")
        return found

    def _records(self, path: str) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record begins, and its fields."""
        csv.field_size_limit(_LONGEST_FIELD)
        reader = csv.reader(
            lines(path, self.encoding),
            delimiter=self._delimiter(path),
            quotechar=self.quote,
            quoting=csv.QUOTE_NONE if self.quote is None else csv.QUOTE_MINIMAL,
            strict=True,
        )
        number = 1
        try:
            for values in reader:
                if len(values) > 1 or "".join(values).strip():
                    yield number, values
                number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}: the record from line {number} is not valid CSV ({error}); double the quotes inside it, "
                "or set quote to null if the file does not quote."
            ) from error

    def _fitted(self, values: list[str], columns: list[str], where: str) -> list[str]:
        if len(values) < len(columns) or (len(values) > len(columns) and self.extra == "refuse"):
            raise DataError(
                f"{where} has {len(values)} field(s) for {len(columns)} column(s) ({', '.join(columns)}); "
                "mend the line, or quote fields that hold the delimiter."
            )
        return values[: len(columns)]


def _repeated(columns: list[str]) -> str | None:
    return next((name for name in columns if columns.count(name) > 1), None)
