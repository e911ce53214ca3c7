"""What the sources with one file per split have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.files import fingerprint_of, no_rows, unknown_split
from ftlab.errors import ConfigError
from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class FileSource(DataSource):
    """A source with one file per split."""

    path: str | dict[str, str]

    def __post_init__(self) -> None:
        paths = [*self._files(), *self._files().values()]
        if not all(paths) or not paths:
            raise ConfigError(f"path is {self.path!r}; give a file, or a file for every split: {{train: a, validation: b}}.")

    def _files(self) -> dict[str, str]:
        return {"train": self.path} if isinstance(self.path, str) else self.path

    def splits(self) -> tuple[str, ...]:
        """The names under which `path` lists files."""
        return tuple(self._files())

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of a split's file; a file without rows is an error."""
        path, empty = self.file(split), True
        for row in self.read(path):
            empty = False
            yield row
        if empty:
            raise no_rows(path)

    def fingerprint(self, split: str) -> str:
        """A hash of the file's bytes and of how they are read."""
        path = self.file(split)
        return fingerprint_of({"source": type(self).__name__, **self.parsing(path)}, [path])

    def file(self, split: str) -> str:
        """The file of a split."""
        if split not in self._files():
            raise unknown_split(f"path {self.path!r}", split, self._files())
        return self._files()[split]

    def parsing(self, path: str) -> dict[str, object]:
        """What decides, besides the bytes of a file, which rows come out of it."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "path"}

    @abstractmethod
    def read(self, path: str) -> Iterator[Row]:
        """The rows of one file."""
