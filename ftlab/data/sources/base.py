"""The contract of a data source: named splits of rows."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What `ftlab check` measures a source on; declared as `sample` on its class.

    Args:
        files: Name → contents of files to write for it.
        arguments: The source's fields, as YAML would hold them; the name of a file, or of its folder, becomes a path.
        fails: Name of a check that cannot pass → why not; one that passes all the same is an error.
    """

    files: Mapping[str, str | bytes] = field(default_factory=dict)
    arguments: Mapping[str, object] = field(default_factory=dict)
    fails: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSource(ABC):
    """Where rows come from. A subclass is a frozen, keyword-only dataclass; its fields are its YAML."""

    sample: ClassVar[Sample] = Sample()
    """What the class is measured on by `ftlab check`."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that `rows` can read."""

    @abstractmethod
    def rows(self, split: str) -> Iterator[Row]:
        """The rows of a split, in the same order every time.

        Raises:
            DataError: A row or file that cannot be read; the message names it.
        """

    def fingerprint(self, split: str) -> str:
        """A hash that changes when the rows do; it keys the token cache. Override it where the rows need not be read."""
        digest = hashlib.sha256()
        for row in self.rows(split):
            digest.update(json.dumps(row, sort_keys=True, default=repr).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
