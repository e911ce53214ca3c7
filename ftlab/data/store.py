"""The token cache: examples as flat memory-mapped arrays, made once and shared by ranks, workers and runs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import StorageError
from ftlab.rows import Example, Stored

_WRITE_EVERY = 10_000
"""Examples held in memory before they are appended to the files."""


def default_folder() -> Path:
    """`$FTLAB_CACHE`, else `~/.cache/ftlab`."""
    return Path(os.environ.get("FTLAB_CACHE") or Path.home() / ".cache" / "ftlab")


class TokenStore:
    """Examples that were written by `write`.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, object] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        fields = self.meta["fields"]
        assert isinstance(fields, dict)
        self._values = {name: _mapped(folder / f"{name}.bin", dtype) for name, dtype in fields.items()}
        self._offsets = {name: np.load(folder / f"{name}.offsets.npy", mmap_mode="r") for name in fields}

    def __len__(self) -> int:
        return len(self._offsets["row"]) - 1 if self._offsets else 0

    def __getitem__(self, index: int) -> Stored:
        return {name: values[self._offsets[name][index] : self._offsets[name][index + 1]] for name, values in self._values.items()}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example (n,)."""
        return np.diff(self._offsets["input_ids"]) if self._offsets else np.zeros(0, dtype=np.int64)


def write(folder: Path, examples: Iterable[Example], meta: Mapping[str, object]) -> None:
    """Write a store; the folder appears whole or not at all.

    Args:
        folder: Its final place; left as it is where another process was faster.
        examples: What to store; all have the same fields.
        meta: Plain values kept beside it.

    Raises:
        StorageError: The cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"the token cache {folder.parent} cannot be written ({error.strerror}); set FTLAB_CACHE to a folder that can.") from error
    try:
        fields = _write_fields(work, examples)
        (work / "meta.json").write_text(json.dumps({**meta, "fields": fields}), encoding="utf-8")
        os.replace(work, folder)
    except OSError as error:
        if not (folder / "meta.json").is_file():
            raise StorageError(f"the token cache {folder.parent} cannot be written ({error.strerror}); free space or set FTLAB_CACHE.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_fields(work: Path, examples: Iterable[Example]) -> dict[str, str]:
    dtypes: dict[str, str] = {}
    lengths: dict[str, list[NDArray[np.int64]]] = {}
    pending: list[Example] = []

    def flush() -> None:
        for name in pending[0] if pending else ():
            values = [np.atleast_1d(np.asarray(e[name])) for e in pending]
            dtype = dtypes.setdefault(name, "float32" if any(v.dtype.kind == "f" for v in values) else "int32")
            with (work / f"{name}.bin").open("ab") as file:
                np.concatenate(values).astype(dtype).tofile(file)
            lengths.setdefault(name, []).append(np.array([len(v) for v in values], dtype=np.int64))
        pending.clear()

    for example in examples:
        pending.append(example)
        if len(pending) == _WRITE_EVERY:
            flush()
    flush()
    for name, parts in lengths.items():
        np.save(work / f"{name}.offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(parts))]).astype(np.int64))
    return dtypes


def _mapped(path: Path, dtype: str) -> NDArray[np.generic]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
