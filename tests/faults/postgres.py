"""A PostgreSQL server of Debian's packages in a temporary folder, reached by a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PATIENCE = 60.0


def _program(name: str) -> str:
    places = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    found = next((place for place in places if place), None)
    if found is None:
        pytest.skip(f"no {name} is installed; apt install postgresql")
    return found


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database, for as long as the block lasts."""
    pytest.importorskip("psycopg")
    initdb, postgres = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="ftlab-pg-"))
    user = None
    if os.geteuid() == 0:  # which PostgreSQL refuses
        user = "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = str(folder / "data")
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "ftlab", "-E", "UTF8", "-N"], user=user, cwd=folder, check=True, capture_output=True
    )
    words = [postgres, "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen(words, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while not (folder / "data" / "postmaster.pid").exists() or "ready" not in (folder / "data" / "postmaster.pid").read_text():
            assert process.poll() is None, "the server ended"
            assert time.monotonic() - begun < _PATIENCE, "the server does not start"
            time.sleep(0.05)
        yield f"postgresql://ftlab@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE)
        shutil.rmtree(folder)
