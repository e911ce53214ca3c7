"""S7, S9, S10: a file system that fails now and then, two processes on one run, and a kill while the only checkpoint is replaced."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

import pytest

from ftlab.checkpoint_io import newest
from ftlab.errors import CheckpointError
from tests.faults.breaking import breaking, steps
from tests.faults.processes import Forker, Hook
from tests.faults.small_run import Place, Reference, differences, place_of

STEP = "ftlab.module:FinetuneModule.training_step"
SHORT = ["--trainer.max_epochs", "2"]
ONE = [*SHORT, "--save.keep", "1", "--plugin", "first.py"]


@pytest.mark.parametrize(("call", "times", "code"), [pytest.param(12, 1, 0, marks=pytest.mark.slow), (17, 3, 0), (17, 4, 8)])
def test_an_io_error_now_and_then_is_tried_again(fork: Forker, tmp_path: Path, call: int, times: int, code: int) -> None:
    """S7: rename works, fsync raises EIO; three tries more, then as S1."""
    words = breaking(tmp_path, "none", 0, tmp_path, steps=3)
    hook = Hook("os:fsync", errno=errno.EIO, call=call, times=times)  # the first ten are of the tokens
    ended, said = fork.run(tmp_path, words, {"FTLAB_CACHE": str(tmp_path / "cache")}, [hook])
    assert ended == code, said
    checkpoints = tmp_path / "runs" / "x" / "y" / "checkpoints"
    assert not list(checkpoints.glob(".*.tmp"))
    if code:
        assert "cannot be written (Input/output error; it needs " in said.splitlines()[-1]
    else:
        assert steps(checkpoints) == [2, 3]


NO_RETRIES = """
import ftlab.folders
ftlab.folders._RETRIES = 0
"""


def test_without_another_try_one_error_ends_the_run(fork: Forker, tmp_path: Path) -> None:
    """S7, control."""
    words = breaking(tmp_path, "none", 0, tmp_path, steps=3)
    with (tmp_path / "breaks.py").open("a") as file:
        file.write(NO_RETRIES)
    code, said = fork.run(tmp_path, words, {"FTLAB_CACHE": str(tmp_path / "cache")}, [Hook("os:fsync", errno=errno.EIO, call=17)])
    assert code == 8, said


def test_a_second_fit_is_refused_and_a_dead_ones_lock_taken_over(fork: Forker, tmp_path: Path) -> None:
    """S9, and its control: without the lock the second would train too."""
    place = Place(tmp_path / "run", SHORT)
    first = fork.start(place.folder, place.first, place.env, [Hook(STEP, signal.SIGSTOP, call=6)], out="first.txt")
    assert first.until(lambda: first.state() == "T")
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 8, said
    since = (
        rf"ftlab: error: {re.escape(str(place.run))} is locked by process {first.pid} on \S+ since [-\d]+ [:\d]+; wait for it, or end it\."
    )
    assert re.fullmatch(since, said.splitlines()[-1])
    code, said = fork.run(place.folder, place.again, place.env, [Hook("fcntl:flock", signal=0), Hook(STEP, call=6)])
    assert code == -signal.SIGKILL, said  # it came to a step
    first.kill(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert str(os.getpid()) not in (place.run / ".lock").read_text()


FIRST_SAVE = """
from dataclasses import dataclass
from ftlab import TuningStrategy
from ftlab.callbacks.checkpoints import Checkpoints

@dataclass(frozen=True, kw_only=True)
class Unused(TuningStrategy):
    \"\"\"A plugin file has one.\"\"\"

    def apply(self, model, heads):
        return model

original = Checkpoints._write

def write(self, trainer, name):
    DELETE
    original(self, trainer, name)

Checkpoints._write = write
"""
DELETE = "[path.unlink() for path in self.folder.glob('step-*.ckpt')]"


@pytest.fixture(scope="module")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    place = place_with(tmp_path_factory.mktemp("whole"), "pass")
    code, said = fork.run(place.folder, place.first, place.env)
    assert code == 0, said
    return Reference({place_of(r): r for r in place.trace()}, place.result())


def place_with(folder: Path, before: str) -> Place:
    place = Place(folder / "run", ONE)
    (place.folder / "first.py").write_text(FIRST_SAVE.replace("DELETE", before))
    return place


WRITTEN = Hook("ftlab.checkpoint_io:_write_synced", call=6, after=True)
"""The third checkpoint lies under its temporary name; each one before took a call, its manifest one, and the first manifest one."""
MOMENTS = {
    "in the write": Hook("torch:save", call=3),
    "between write and rename": WRITTEN,
    "before the old one is deleted": Hook("ftlab.checkpoint_io:delete", call=2),
    "after the old one is deleted": Hook("ftlab.checkpoint_io:delete", call=2, after=True),
}


@pytest.mark.parametrize("moment", [m if m == "in the write" else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_a_kill_while_the_only_checkpoint_is_replaced(fork: Forker, tmp_path: Path, whole: Reference, moment: str) -> None:
    """S10."""
    place = place_with(tmp_path, "pass")
    code, said = fork.run(place.folder, place.first, place.env, [MOMENTS[moment]])
    assert code == -signal.SIGKILL, said
    assert newest(place.run / "checkpoints") is not None
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert differences(place, whole) == []


def test_deleting_first_would_lose_it(fork: Forker, tmp_path: Path) -> None:
    """S10, control."""
    place = place_with(tmp_path, DELETE)
    code, said = fork.run(place.folder, place.first, place.env, [MOMENTS["in the write"]])
    assert code == -signal.SIGKILL, said
    with pytest.raises(CheckpointError, match="can be used"):
        newest(place.run / "checkpoints")
