"""Plain text, one file per split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.lines import Unit, check_encoding, texts
from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class TextFile(FileSource):
    """Rows from plain text, in the column `text`; blank lines are not rows.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
        unit: What a row is: a line, a paragraph (blank lines separate them) or the whole file.
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"train.txt": "one\ntwo\n\nthree\n", "held.txt": "four\n"},
        arguments={"path": {"train": "train.txt", "validation": "held.txt"}},
    )

    path: str | dict[str, str]
    unit: Unit = "line"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)

    def read(self, path: str) -> Iterator[Row]:
        """The units of one file."""
        for text in texts(path, self.encoding, self.unit):
            yield {"text": text}
