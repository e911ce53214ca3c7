"""One process at a time works on a run."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftlab.errors import StorageError

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _let_go() -> None:
    """Give up what a fork inherited: a worker that outlives a killed run for seconds would keep the next one out."""
    if not _held:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    while _held:
        os.dup2(nothing, _held.pop())  # the number stays taken, for the file object that the fork has inherited too
    os.close(nothing)


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's lock; the system gives it back when the process dies, however it dies.

    Args:
        folder: The run's folder.

    Raises:
        StorageError: Another process holds it; the message says which.
    """
    path = folder / ".lock"
    try:  # a link under this name would have its target emptied
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened ({error.strerror}); remove it, or set run.root to a folder of your own.") from error
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"{folder} is locked by {file.read().strip() or 'another process'}; wait for it, or end it.") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be locked ({error.strerror}); set run.root to a file system that has locks.") from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        _held.add(descriptor)
        try:
            yield
        finally:
            _held.discard(descriptor)
