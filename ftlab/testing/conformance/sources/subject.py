"""The data source under test, and the files that it reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ftlab.batch import Batch
from ftlab.data.loader import FinetuneLoader, Plan
from ftlab.data.sources.base import DataSource
from ftlab.data.store import TokenStore, write
from ftlab.rows import Row, Stored
from ftlab.testing.conformance.examined import Examined

_MOST = 1000
"""Rows of a split that are looked at."""


@dataclass(frozen=True, kw_only=True)
class SourceSubject(Examined):
    """A data source.

    Args:
        source: What is checked.
        files: The files that were written for it.
    """

    kind = "data"

    source: DataSource
    files: Sequence[Path] = field(default_factory=tuple)

    @classmethod
    def placed(cls, source: DataSource, places: Mapping[str, Path], root: Path, fails: Mapping[str, str]) -> Self:
        """A source in whose fields the names of files become their paths."""
        values = {f.name: with_paths(getattr(source, f.name), places) for f in dataclasses.fields(source) if f.init}
        files = tuple(path for path in places.values() if path.is_file())
        return cls(source=replace(source, **values), files=files, root=root, fails=fails)

    @property
    def plugin(self) -> DataSource:
        """The source."""
        return self.source

    @property
    def admitted(self) -> Mapping[str, str]:
        """What its sample says."""
        return self.source.sample.fails

    def rows(self, split: str) -> list[Row]:
        """The first rows of a split."""
        return list(islice(self.source.rows(split), _MOST))

    def hashes(self, split: str) -> list[int]:
        """A number for each of the first rows."""
        return [number_of(row) for row in self.rows(split)]

    def store(self, split: str) -> TokenStore:
        """A token cache whose examples say which rows they are of, by a number for each."""
        folder = Path(tempfile.mkdtemp(prefix="rows-", dir=self.root)) / "store"
        write(folder, ({"input_ids": [h], "row": i} for i, h in enumerate(self.hashes(split))), {})
        return TokenStore(folder)


def put_files(files: Mapping[str, str | bytes], root: Path) -> dict[str, Path]:
    """Write files; name → path of each, and of each folder that a name holds."""
    base, places = root / "files", dict[str, Path]()
    for name, content in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        places[name] = path
        places |= {str(parent.relative_to(base)): parent for parent in path.parents if base in parent.parents}
    return places


def with_paths(value: Any, places: Mapping[str, Path]) -> Any:
    """A value of a field with paths for the names of files, at any depth."""
    if isinstance(value, str):
        return str(places.get(value, value))
    if isinstance(value, Mapping):
        return {key: with_paths(inner, places) for key, inner in value.items()}
    return [with_paths(inner, places) for inner in value] if isinstance(value, list) else value


def number_of(row: Row) -> int:
    """A number that two rows share only where they are equal; 31 bits of it, as the token cache keeps them."""
    text = json.dumps(row, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def batches(store: TokenStore, plan: Plan) -> FinetuneLoader:
    """The loader of a run over such a store."""
    return FinetuneLoader(store, _collate, plan)


def seen(loader: FinetuneLoader) -> Iterator[list[int]]:
    """The numbers of the rows of each batch of an epoch; none for a filler."""
    return (batch.inputs["input_ids"].squeeze(1).tolist() if batch.index else [] for batch in loader)


def _collate(examples: Sequence[Stored]) -> Batch:
    ids = torch.from_numpy(np.stack([e["input_ids"] for e in examples]).astype(np.int64))
    return Batch(inputs={"input_ids": ids}, labels={"none": ids}, rows=torch.tensor([int(e["row"][0]) for e in examples]))
