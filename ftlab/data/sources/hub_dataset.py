"""Datasets of the Hugging Face hub, and folders laid out like one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlab.data.sources.base import DataSource, Sample
from ftlab.data.sources.files import no_rows, refuse_bad_text, unknown_split
from ftlab.data.sources.hub_builder import open_builder, reading, split_names
from ftlab.errors import ConfigError
from ftlab.rows import Row

if TYPE_CHECKING:
    from datasets import DatasetBuilder

# Nothing else goes to the library: it also takes URLs, buckets and the names of its own readers.
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class HubDataset(DataSource):
    """A dataset from the Hugging Face hub or a local folder of data files; no code of the dataset's is run.

    Args:
        path: Hub id (owner/name), or a folder whose file names or README name the splits.
        name: Configuration of the dataset; null if it has only one.
        revision: Commit, tag or branch on the hub; null takes the newest commit, a commit makes runs repeatable.
    """

    sample = Sample(
        files={"rows/train.jsonl": '{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n', "rows/validation.jsonl": '{"text": "four"}\n'},
        arguments={"path": "rows"},
        fails={"missing_file": "the splits of a folder are those that are there"},
    )

    path: str
    name: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if os.path.isdir(self.path):
            if self.revision is not None:
                raise ConfigError(f"revision is '{self.revision}' and {self.path} is a folder; only the hub has revisions, leave it out.")
        elif not _HUB_ID.fullmatch(self.path) or os.path.exists(self.path):
            raise ConfigError(
                f"path is '{self.path}', neither a folder here nor a hub id such as owner/name; for a single file use "
                "JsonLines, Csv, Parquet or TextFile."
            )

    def splits(self) -> tuple[str, ...]:
        """The splits that the dataset declares or its file names show."""
        with reading(self.path):
            return self._split_names(open_builder(self.path, self.name, self.revision))

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of a split, from the library's cache, which is filled first."""
        with reading(self.path):
            builder = self._builder_with(split)
            builder.download_and_prepare()
            # The library refuses to open a split that it wrote without rows.
            if not builder.info.splits[split].num_examples:
                raise no_rows(f"{self.path}, split '{split}',")
            for number, row in enumerate(builder.as_dataset(split=split), 1):
                refuse_bad_text(row, f"{self.path}, split '{split}': row {number}")
                yield row

    def fingerprint(self, split: str) -> str:
        """A hash of the commit, the configuration and the split; of the rows where the dataset is a folder."""
        # The library's own hash of a folder holds its place and the times of its files.
        if os.path.isdir(self.path):
            return super().fingerprint(split)
        with reading(self.path):
            builder = self._builder_with(split)
        parts = ("HubDataset", self.path, str(builder.hash), builder.config.name, split)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _builder_with(self, split: str) -> DatasetBuilder:
        builder = open_builder(self.path, self.name, self.revision)
        known = self._split_names(builder)
        if split not in known:
            raise unknown_split(self.path, split, known)
        return builder

    def _split_names(self, builder: DatasetBuilder) -> tuple[str, ...]:
        return split_names(builder, self.path, self.name, self.revision)
