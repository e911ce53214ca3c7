"""Checkpoint files that are whole, unchanged and known, or refused.

A file is written under another name in the same folder, synced, renamed, and only then listed in `manifest.json` with its SHA-256;
only after that may an older one be deleted. Whenever a process dies, the manifest names files that are whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from ftlab.errors import CheckpointError, SecurityError, StorageError
from ftlab.folders import delete as delete
from ftlab.folders import file_hash, retried, sync_folder

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A checkpoint file as the manifest knows it."""

    sha256: str
    bytes: int
    step: int
    epoch: int

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not all(type(v) is int for v in (self.bytes, self.step, self.epoch)):
            raise TypeError(f"an entry holds {self}")


@dataclass
class Manifest:
    """The checkpoints of a run.

    Args:
        files: File name → entry.
        best: Name of the file with the best monitored value.
        best_value: That value.
    """

    files: dict[str, Entry] = field(default_factory=dict)
    best: str | None = None
    best_value: float | None = None

    @staticmethod
    def read(folder: Path) -> Manifest:
        """The manifest of a folder; empty where there is none yet.

        Raises:
            CheckpointError: It is damaged or of another format.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return Manifest()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["format"] != FORMAT:
                raise CheckpointError(f"{path} has format {raw['format']}, this ftlab reads {FORMAT}; use the version that wrote it.")
            files = {_plain_name(name): Entry(**entry) for name, entry in raw["files"].items()}
            return Manifest(files=files, best=raw["best"], best_value=raw["best_value"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({error!r:.80}); restore it, or start a new run.") from error

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest."""
        files = {name: asdict(entry) for name, entry in self.files.items()}
        content = {"format": FORMAT, "files": files, "best": self.best, "best_value": self.best_value}
        text = (json.dumps(content, indent=1) + "\n").encode()
        write_whole(folder / MANIFEST, lambda file: file.write(text))

    def newest_first(self) -> list[str]:
        """File names by falling step; clocks and file times play no part."""
        return sorted(self.files, key=lambda name: self.files[name].step, reverse=True)


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's way to disk: atomic, hashed, and read with `weights_only=True`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        target = Path(path)
        if not (target.parent / MANIFEST).exists():
            Manifest().write(target.parent)  # from here on, checkpoints without a manifest are a fault and not a first save cut off
        digest, size = write_whole(target, lambda file: torch.save(checkpoint, file))
        manifest = Manifest.read(target.parent)
        entry = Entry(sha256=digest, bytes=size, step=int(checkpoint["global_step"]), epoch=int(checkpoint["epoch"]))
        manifest.files[target.name] = entry
        manifest.write(target.parent)

    def load_checkpoint(self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        target = Path(path)
        manifest = Manifest.read(target.parent)
        manifest.files.pop(target.name, None)
        manifest.write(target.parent)
        delete(target)


def write_whole(target: Path, write: Callable[[IO[bytes]], object]) -> tuple[str, int]:
    """Write a file whole or not at all; its SHA-256 and size.

    Raises:
        StorageError: It cannot be written; whatever was there before is unchanged.
    """
    try:
        return retried(lambda: _replaced(target, write))
    except OSError as error:
        free = shutil.disk_usage(target.parent).free if target.parent.is_dir() else 0
        raise StorageError(
            f"{target} cannot be written ({error.strerror}; it needs {_size(write):,} bytes, {free:,} are free); "
            "free space or mend the folder, then continue with --resume."
        ) from error


def _replaced(target: Path, write: Callable[[IO[bytes]], object]) -> tuple[str, int]:
    work = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        result = _write_synced(work, write)
        os.replace(work, target)
        sync_folder(target.parent)
        return result
    except (OSError, RuntimeError) as error:  # torch wraps what its stream raises into a RuntimeError
        with suppress(OSError):
            work.unlink(missing_ok=True)
        raise _os_error(error) or error from None


def _size(write: Callable[[IO[bytes]], object]) -> int:
    """How many bytes are written, up to the writer's own failure."""
    with Path(os.devnull).open("wb") as nowhere:
        stream = _Hashing(nowhere)
        with suppress(OSError, RuntimeError):
            write(stream)  # type: ignore[arg-type]  # torch.save asks for write and flush alone
    return stream.size


def _os_error(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


class _Hashing:
    """A stream that hashes what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write_synced(work: Path, write: Callable[[IO[bytes]], object]) -> tuple[str, int]:
    # O_EXCL and O_NOFOLLOW: in a folder that others can write to, nobody can lay a link under this name.
    descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        stream = _Hashing(file)
        write(stream)  # type: ignore[arg-type]  # torch.save asks for write and flush alone
        file.flush()
        os.fsync(file.fileno())
    return stream.digest.hexdigest(), stream.size


def problem(path: Path) -> str | None:
    """Why a checkpoint file may not be used, or None where it is the file that was written."""
    real = path.resolve()
    known = Manifest.read(real.parent).files
    entry = known.get(real.name)
    if path.name in Manifest.read(path.parent).files and path.is_symlink():
        return "is a link, which this run did not write"  # another run's manifest would vouch for what it points at
    if entry is None:  # a folder that was copied without its links has their files instead
        named = real.name in ("best.ckpt", "last.ckpt") and real.is_file()
        copied = named and file_hash(real) in {one.sha256 for one in known.values()}
        return None if copied else f"is not listed in {real.parent / MANIFEST}"
    if not real.is_file():
        return "is gone"
    size = real.stat().st_size
    if size != entry.bytes:
        return f"has {size:,} bytes instead of {entry.bytes:,}"
    if file_hash(real) != entry.sha256:
        return "is not what was written: its SHA-256 differs"
    return None


def load(place: str | os.PathLike[str]) -> dict[str, Any]:
    """A verified checkpoint.

    Raises:
        CheckpointError: It is absent, damaged, or not listed in the manifest beside it.
        SecurityError: It holds more than tensors and plain values.
    """
    if "://" in os.fspath(place):  # a Path would make one slash of two
        raise SecurityError(f"{place} is a checkpoint from elsewhere; download it and name the local file.")
    path = Path(place)
    fault = problem(path)
    if fault is not None:
        raise CheckpointError(f"{path} {fault}; use another checkpoint of the run, or copy the whole checkpoints folder.")
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SecurityError(f"{path} holds more than tensors and plain values, which could run code; it was not loaded.") from error
    except (RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        raise CheckpointError(f"{path} is no checkpoint ({error!r:.80}); use another one of the run.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of a checkpoint; use another one of the run.")
    return content


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that verifies; None where the folder has none at all.

    Raises:
        CheckpointError: There are checkpoints, and none of them verifies.
    """
    names = Manifest.read(folder).newest_first()
    if not names and not (folder / MANIFEST).is_file() and any(folder.glob("step-*.ckpt")):
        raise CheckpointError(f"{folder} has checkpoints but no {MANIFEST} to verify them by; restore it, or start a new run.")
    faults: list[str] = []
    for name in names:
        fault = problem(folder / name)
        if fault is None:
            if faults:
                log.warning("%s; going back to %s", "; ".join(faults), name)
            return folder / name
        faults.append(f"{name} {fault}")
    if faults:
        raise CheckpointError(f"no checkpoint in {folder} can be used: {'; '.join(faults[:3])}; start a new run.")
    return None


def clean(folder: Path) -> None:
    """Delete what a killed process left half-written, and files that never came into the manifest."""
    known = Manifest.read(folder).files
    for path in _strays(folder):
        if path.name not in known:
            delete(path)


def _strays(folder: Path) -> Iterator[Path]:
    yield from folder.glob(".*.tmp")
    yield from (p for p in folder.glob("step-*.ckpt") if not p.is_symlink())


def _plain_name(name: object) -> str:
    """A file name in the folder itself: nothing else is ever hashed, loaded or deleted."""
    if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"a file is named {name!r:.40}")
    return name


def now() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()
