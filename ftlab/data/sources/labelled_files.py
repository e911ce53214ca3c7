"""Plain text, one file per label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftlab.data.sources.base import DataSource, Sample
from ftlab.data.sources.files import fingerprint_of, no_rows, unknown_split
from ftlab.data.sources.lines import Unit, check_encoding, texts
from ftlab.errors import ConfigError
from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class LabelledFiles(DataSource):
    """Rows from one text file per label: columns `text` and `label`, label by label, in the split `train`.

    Args:
        path: Label → text file, such as {neg: rt-polarity.neg, pos: rt-polarity.pos}.
        unit: What a row is: a line, a paragraph (blank lines separate them) or the whole file.
        encoding: Text encoding of the files.
    """

    sample = Sample(files={"neg.txt": "no\nnever\n", "pos.txt": "yes\nalways\n"}, arguments={"path": {"neg": "neg.txt", "pos": "pos.txt"}})

    path: dict[str, str]
    unit: Unit = "line"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        if not self.path or not all([*self.path, *self.path.values()]):
            raise ConfigError(f"path is {self.path}; give a text file for every label: {{neg: a.txt, pos: b.txt}}.")

    def splits(self) -> tuple[str, ...]:
        """Only `train`."""
        return ("train",)

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of every label's file; a file without rows is an error."""
        self._check(split)
        for label, path in self.path.items():
            empty = True
            for text in texts(path, self.encoding, self.unit):
                empty = False
                yield {"text": text, "label": label}
            if empty:
                raise no_rows(f"{path}, the file of label '{label}',")

    def fingerprint(self, split: str) -> str:
        """A hash of the labels, the files' bytes and how they are read."""
        self._check(split)
        spec = {"source": "LabelledFiles", "unit": self.unit, "encoding": self.encoding, "labels": list(self.path)}
        return fingerprint_of(spec, self.path.values())

    def _check(self, split: str) -> None:
        if split not in self.splits():
            raise unknown_split(f"path {self.path}", split, self.splits())
