"""The token cache: examples as flat memory-mapped arrays, made once and shared by ranks, workers and runs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import DataError, StorageError
from ftlab.rows import Example, Stored

_WRITE_EVERY = 2**20
"""Values of one field held in memory before they are appended to its file."""

_STALE = 24 * 3600
"""Seconds after which a half-written store is taken for the remains of a process that was killed."""


def default_folder() -> Path:
    """`$FTLAB_CACHE`, else `~/.cache/ftlab`."""
    return Path(os.environ.get("FTLAB_CACHE") or Path.home() / ".cache" / "ftlab")


class TokenStore:
    """Examples that were written by `write`.

    Args:
        folder: Where they lie.

    Raises:
        StorageError: The files cannot be read or do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.meta: dict[str, object] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            fields = self.meta["fields"]
            assert isinstance(fields, dict)
            self._offsets = {name: _plain(np.load(folder / f"{name}.offsets.npy", mmap_mode="r")) for name in fields}
            self._values = {name: _mapped(folder / f"{name}.bin", dtype, int(self._offsets[name][-1])) for name, dtype in fields.items()}
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"the cached tokens in {folder} cannot be read ({error}); delete that folder, it is made again.") from error

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        """Worker processes get the folder, not the tokens."""
        return TokenStore, (self.folder,)

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
        meta: Plain values kept beside it, read when the last example has been taken.

    Raises:
        DataError: The examples do not all have the same fields, or hold what no field can.
        StorageError: The cache cannot be written.
    """
    with _storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fields: dict[str, _Field] = {}
        for number, example in enumerate(examples):
            _add(fields, example, number, work)
        with _storage(folder):
            dtypes = {name: field.close() for name, field in fields.items()}
            _write_synced(work / "meta.json", json.dumps({**meta, "fields": dtypes}).encode())
            _publish(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Field:
    """One field of all examples: a file of values, and how many of them each example has.

    The field's type is that of the first values written; an empty list has none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dtype: str | None = None
        self.counts: list[int] = []
        self._pending: list[int | float] = []

    def add(self, value: int | float | list[int] | list[float]) -> None:
        if isinstance(value, list):
            self._pending += value
            self.counts.append(len(value))
        else:
            self._pending.append(value)
            self.counts.append(1)
        if len(self._pending) >= _WRITE_EVERY:
            with _storage(self.path.parent):
                self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        try:
            values = np.array(self._pending)
        except ValueError:  # lists of different lengths
            values = np.array([None])
        kind = {"b": "int32", "i": "int32", "f": "float32"}.get(values.dtype.kind)
        self.dtype = self.dtype or kind
        if kind is None or values.ndim != 1 or (kind, self.dtype) == ("float32", "int32"):
            raise DataError(f"{self._name()} holds {self._odd()!r:.60}; a field is whole numbers or floats, one or a flat list.")
        if kind == "int32" and (outside := values[(values >= 2**31) | (values < -(2**31))]).size:
            raise DataError(f"{self._name()} holds {outside[0]}; whole numbers are kept in 32 bits, so keep them below 2^31.")
        with self.path.open("ab") as file:
            file.write(values.astype(self.dtype).tobytes())  # tofile says nothing where a full disk takes only a part
        self._pending.clear()

    def _name(self) -> str:
        return f"field '{self.path.stem}' of the task's examples"

    def _odd(self) -> object:
        """The first value that is not of the field's type."""
        allowed: tuple[type, ...] = (int,) if self.dtype == "int32" else (int, float)
        return next((v for v in self._pending if not isinstance(v, allowed) or abs(v) >= 2**63), self._pending[0])

    def close(self) -> str:
        self.flush()
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
        offsets = self.path.with_name(f"{self.path.stem}.offsets.npy")
        with offsets.open("wb") as file:
            np.save(file, np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64))
            os.fsync(file.fileno())
        return self.dtype or "int32"


def _add(fields: dict[str, _Field], example: Example, number: int, work: Path) -> None:
    if not number:
        fields.update({name: _Field(work / f"{name}.bin") for name in example})
    if fields.keys() != example.keys():
        found, first = sorted(example), sorted(fields)
        raise DataError(f"example {number} has the fields {found}, the first one {first}; a task gives all the same ones.")
    for name, field in fields.items():
        field.add(example[name])


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Errors of the file system as one sentence; those of whoever makes the examples pass by."""
    try:
        yield
    except OSError as error:
        where = f"{folder.parent} cannot be written ({error.strerror or error})"
        raise StorageError(f"the token cache {where}; free space or set FTLAB_CACHE to another folder.") from error


def _publish(work: Path, folder: Path) -> None:
    try:
        os.replace(work, folder)
    except OSError:
        if not (folder / "meta.json").is_file():
            raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove_stale(parent: Path) -> None:
    """Delete what killed processes left; a live one has written something within a day."""
    for work in parent.glob(".*"):
        with suppress(OSError):  # another process may be deleting it as well
            newest = max(p.stat().st_mtime for p in [work, *work.glob("*")])
            if time.time() - newest > _STALE:
                shutil.rmtree(work, ignore_errors=True)


def _plain(array: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(array)  # the same memory map without the subclass, whose slices cost ten times as much


def _mapped(path: Path, dtype: str, count: int) -> NDArray[np.generic]:
    size = path.stat().st_size
    if size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} has {size} bytes instead of {count * np.dtype(dtype).itemsize}")
    if not count:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
