"""What the sources that read local files have in common: opening, hashing, and the sentences for what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader

from ftlab.errors import DataError, nearest
from ftlab.rows import Row


def unknown_split(where: str, split: str, splits: Iterable[str]) -> DataError:
    """The error for a split that a source does not have: the nearest names, and all of them."""
    known = list(splits)
    close = nearest(split, known)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return DataError(f"{where} has no split '{split}'; {hint}its splits are {', '.join(known) or 'none'}.")


def no_rows(where: str) -> DataError:
    """The error for data that would train nothing."""
    return DataError(f"{where} has no rows; name data with at least one row.")


def refuse_bad_text(row: Row, where: str) -> None:
    """Refuse text that no tokenizer takes, at any depth of a row.

    Raises:
        DataError: A string holds a NUL character or half of a surrogate pair.
    """
    for column, value in row.items():
        what = _bad_text(value)
        if what:
            raise DataError(f"{where}: column '{column}' holds {what}, which is not text; mend or remove the row.")


def _bad_text(value: object) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair"
        return "a NUL character" if "\0" in value else ""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next(filter(None, map(_bad_text, value)), "")
    return ""


@contextmanager
def opened(path: str) -> Iterator[BufferedReader]:
    """Open a regular file for reading bytes.

    Raises:
        DataError: It is missing, a folder, a pipe or device, or the disk does not give it.
    """
    try:
        _check_regular(path, os.stat(path).st_mode)
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; {_neighbours(path)}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions.") from error


def _check_regular(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder; name one file in it.")
    # Opening a pipe that nobody writes to would wait for ever.
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is a pipe or device; save its contents to a regular file, which can be read twice, and name that.")


def _neighbours(path: str) -> str:
    folder, name = os.path.split(path)
    close: list[str] = []
    with suppress(OSError):
        close = nearest(name, os.listdir(folder or "."))
    return f"did you mean {' or '.join(close)}?" if close else "check the path and the folder you are in."


def fingerprint_of(spec: Mapping[str, object], paths: Iterable[str]) -> str:
    """A SHA-256 of how files are read and of their bytes, in this order; times and places of files do not matter."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for path in paths:
        with opened(path) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
