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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's lock; the system gives it back when the process dies, however it dies.

    Args:
        folder: The run's folder.

    Raises:
        StorageError: Another process holds it; the message says which.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StorageError(f"{folder} is locked by {file.read().strip() or 'another process'}; wait for it, or end it.") from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield
