"""Files in the columns of the CoNLL shared tasks: a word on each line, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.lines import check_encoding, lines
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row

_DOCUMENT = "-DOCSTART-"
"""The first field of a line that begins a document and is no word."""


@dataclass(frozen=True, kw_only=True)
class Conll(FileSource):
    """Sentences from CoNLL files, one row each: every column is a list with an entry for each word.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
        columns: Names of all the fields of a line in their order, such as [tokens, pos, tags]; null takes the first as `tokens` and the
            last as `tags`.
        separator: What stands between fields, such as a tab; null is any number of spaces and tabs.
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"train.conll": "Ann B-PER\nsings O\n\nRome B-LOC\n\nno O\n", "held.conll": "Bob B-PER\n"},
        arguments={"path": {"train": "train.conll", "validation": "held.conll"}},
    )

    path: str | dict[str, str]
    columns: list[str] | None = None
    separator: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)
        if self.columns is not None and (not self.columns or len(set(self.columns)) < len(self.columns)):
            raise ConfigError(f"columns is {self.columns}; name every field once, or set it to null.")
        if self.separator is not None and (not self.separator or "\n" in self.separator or "\r" in self.separator):
            raise ConfigError(f'separator is {self.separator!r}; give what stands between fields, such as "\\t", or null.')

    def read(self, path: str) -> Iterator[Row]:
        """The sentences of one file; a line that marks a document ends one."""
        words: list[list[str]] = []
        count = 0
        for number, line in enumerate(lines(path, self.encoding), 1):
            fields = self._fields(line)
            if fields and fields[0] != _DOCUMENT:
                words.append(self._fitted(fields, f"{path}: line {number}"))
                count = count or len(fields)
                if len(fields) != count:
                    raise DataError(f"{path}: line {number} has {len(fields)} field(s), the first word's has {count}; mend the line.")
            elif words:
                yield self._row(words)
                words = []
        if words:
            yield self._row(words)

    def _fields(self, line: str) -> list[str]:
        """The fields of a line, none of a blank one."""
        if not line.strip():
            return []
        # Not split(), for which a no-break space within a word is a separator too.
        return re.split(r"[ \t]+", line.strip(" \t\r\n")) if self.separator is None else line.rstrip("\r\n").split(self.separator)

    def _fitted(self, fields: list[str], where: str) -> list[str]:
        """One value for each column."""
        if self.columns is None and len(fields) > 1:
            fields = [fields[0], fields[-1]]
        names = self.columns or ["tokens", "tags"]
        if len(fields) != len(names):
            raise DataError(
                f"{where} has {len(fields)} field(s) for {len(names)} column(s) ({', '.join(names)}); mend the line, or set separator "
                "or columns to what the file has."
            )
        return fields

    def _row(self, words: list[list[str]]) -> Row:
        return dict(zip(self.columns or ["tokens", "tags"], map(list, zip(*words, strict=True)), strict=True))
