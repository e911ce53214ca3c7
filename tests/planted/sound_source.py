"""A small source without a fault: lines of a file. The broken ones each change one thing in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftlab.data.sources.base import DataSource, Sample
from ftlab.errors import DataError
from ftlab.rows import Row

LINES = ("one", "two", "three", "four", "five")


@dataclass(frozen=True, kw_only=True)
class SoundSource(DataSource):
    """Lines of a file: the last two are the split `validation`.

    Args:
        path: The file.
    """

    sample = Sample(files={"lines.txt": "\n".join(LINES)}, arguments={"path": "lines.txt"})

    path: str

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation")

    def rows(self, split: str) -> Iterator[Row]:
        if split not in self.splits():
            raise self.unknown(split)
        lines = self.lines()
        yield from ({"text": line} for line in (lines[:-2] if split == "train" else lines[-2:]))

    def unknown(self, split: str) -> Exception:
        return DataError(f"there is no split {split}; name one of {', '.join(self.splits())}.")

    def lines(self) -> list[str]:
        try:
            return self.text().splitlines()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}); check the path.") from error

    def text(self) -> str:
        return Path(self.path).read_text()

    def fingerprint(self, split: str) -> str:
        return hashlib.sha256(self.told(split).encode()).hexdigest()

    def told(self, split: str) -> str:
        return f"{split} {self.text()}"
