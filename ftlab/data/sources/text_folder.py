"""A folder of plain text files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from ftlab.data.sources.base import DataSource, Sample
from ftlab.data.sources.files import fingerprint_of, no_rows, unknown_split
from ftlab.data.sources.lines import check_encoding, texts
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Row

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class TextFolder(DataSource):
    """One row for each text file of a folder, sorted by path: columns `text` and `file`; blank files are not rows.

    Args:
        path: The folder; its sub-folders train, validation and test are the splits, without them all of it is `train`.
        pattern: Which files, relative to the folder of a split; ** stands for any depth.
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"texts/train/a.txt": "one\ntwo\n", "texts/train/b.txt": "three\n", "texts/validation/c.txt": "four\n"},
        arguments={"path": "texts"},
        fails={"missing_file": "the files of a folder are those that are there"},
    )

    path: str
    pattern: str = "**/*.txt"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        pattern = PurePath(self.pattern)
        if not self.path or not pattern.parts or pattern.is_absolute() or ".." in pattern.parts:
            raise ConfigError(f"path is '{self.path}' and pattern '{self.pattern}'; give a folder and a pattern inside it.")

    def splits(self) -> tuple[str, ...]:
        """The sub-folders that are called like splits, or else `train`."""
        root = Path(self.path)
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise DataError(f"{self.path} {what}; name a folder of text files.")
        return tuple(split for split in _SPLITS if (root / split).is_dir()) or ("train",)

    def rows(self, split: str) -> Iterator[Row]:
        """The files of a split, in the order of their paths."""
        folder, empty = self._folder(split), True
        for file in self._files(folder):
            for text in texts(str(folder / file), self.encoding, "file"):
                empty = False
                yield {"text": text, "file": file}
        if empty:
            raise no_rows(f"{folder} with pattern '{self.pattern}'")

    def fingerprint(self, split: str) -> str:
        """A hash of the files' paths and bytes and of how they are read."""
        folder = self._folder(split)
        files = self._files(folder)
        spec = {"source": "TextFolder", "encoding": self.encoding, "files": files}
        return fingerprint_of(spec, [str(folder / file) for file in files])

    def _folder(self, split: str) -> Path:
        splits = self.splits()
        if split not in splits:
            raise unknown_split(self.path, split, splits)
        inner = Path(self.path, split)
        return inner if inner.is_dir() else Path(self.path)

    def _files(self, folder: Path) -> list[str]:
        return sorted(file.relative_to(folder).as_posix() for file in folder.glob(self.pattern) if not file.is_dir())
