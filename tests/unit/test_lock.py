"""One process at a time works on a run (S9, X20)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ftlab.errors import StorageError
from ftlab.lock import locked

HOLDER = """
import sys
from pathlib import Path
from ftlab.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_which_one_holds_the_run(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        said = rf"is locked by process {process.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait for it, or end it\."
        with pytest.raises(StorageError, match=said), locked(tmp_path):
            raise AssertionError
        process.communicate("")
    with locked(tmp_path):  # given back
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stale = (tmp_path / ".lock").read_text()
    assert str(process.pid) in stale
    with locked(tmp_path):
        assert re.match(rf"process {os.getpid()} on ", (tmp_path / ".lock").read_text())


def test_a_link_under_the_locks_name_is_not_followed(tmp_path: Path) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    run.mkdir()
    precious.write_text("alias ll='ls -l'\n")
    (run / ".lock").symlink_to(precious)
    with pytest.raises(StorageError, match="cannot be opened"), locked(run):
        raise AssertionError
    assert precious.read_text() == "alias ll='ls -l'\n"


def test_the_lock_is_the_owners_alone(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"), locked(tmp_path / "none"):
        raise AssertionError
