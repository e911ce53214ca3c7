"""Folders that appear whole or not at all, and the record of what lies in them; syncing and hashing for everybody."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from ftlab.errors import CheckpointError, ConfigError, StorageError

RECORD = "ftlab.json"
"""The record that ftlab leaves in what it exports: how to open it, and the SHA-256 of every other file."""
_FORMAT = 1
_RETRIES = 3

Result = TypeVar("Result")


def retried(write: Callable[[], Result]) -> Result:
    """Write, and try again after an I/O error, which network file systems give now and then.

    Args:
        write: Begins anew each time it is called.

    Raises:
        OSError: It stayed, or is another one.
    """
    for _ in range(_RETRIES):
        try:
            return write()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    return write()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def try_writing(folder: Path) -> None:
    """Make a folder of a run and write to it, before hours are spent on what it shall hold.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"run folder {folder} cannot be written ({error.strerror}); set run.root to a folder that can.") from error


def check_target(folder: Path) -> None:
    """Refuse a place that something else stands in.

    Raises:
        ConfigError: It exists and is not an empty folder.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise ConfigError(f"{folder} exists and is not an empty folder; name a new folder, or remove this one.")


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A working folder beside `target` that takes its name when the block ends well, and is removed when it does not.

    Args:
        target: The final place; absent or an empty folder.

    Raises:
        ConfigError: Something stands there.
        StorageError: It cannot be written.
    """
    check_target(target)
    work = target.with_name(f".{secrets.token_hex(8)}.tmp")  # without the target's name, which may be as long as a name can be
    try:
        work.mkdir(parents=True)
        yield work
        _sync(work)
        os.replace(work, target)
        sync_folder(target.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{target} cannot be written ({reason}); free space or name another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def delete(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be deleted ({error.strerror}); mend the folder, then continue with --resume.") from error


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a run's folder.

    Raises:
        StorageError: The folder cannot be written.
    """
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            delete(path)


def write_record(folder: Path, facts: Mapping[str, object]) -> None:
    """Write down `facts` and the hashes of all files that `folder` holds."""
    files = {p.relative_to(folder).as_posix(): {"sha256": file_hash(p), "bytes": p.stat().st_size} for p in _files(folder)}
    (folder / RECORD).write_text(json.dumps({"format": _FORMAT, **facts, "files": files}, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of an exported folder, whose files are as they were written; None where ftlab did not write it.

    Raises:
        CheckpointError: The record cannot be read, or a file is missing or not the one that was written.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known, files = int(record["format"]), dict(record["files"])
        wanted = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); export the run again.") from error
    if known > _FORMAT:
        raise CheckpointError(f"{path} has format {known}, and this ftlab reads up to {_FORMAT}; install a newer ftlab.")
    for name, (digest, size) in wanted.items():
        _check_file(folder, name, digest, size)
    return record


def _check_file(folder: Path, name: str, digest: str, size: int) -> None:
    path = folder / name
    if folder.resolve() not in path.resolve().parents or not path.is_file():
        raise CheckpointError(f"{folder} lacks {name}, which {RECORD} names; export the run again.")
    found = path.stat().st_size
    if found != size:
        raise CheckpointError(f"{path} has {found} bytes instead of {size}; it was cut or changed, so export the run again.")
    if file_hash(path) != digest:
        raise CheckpointError(f"{path} is not the file that was exported (its SHA-256 differs); export the run again.")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != RECORD)


def _sync(folder: Path) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for inner in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        sync_folder(inner)
