"""S1, S4, S5, S6 with two ranks: what rank 0 cannot write ends both, and no rank waits for another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.breaking import breaking, steps
from tests.faults.processes import PATIENCE, Forker, Hook, codes
from tests.faults.test_signals import processes_of

REMEDY = "set run.root to a folder that can."
RESUME = ["fit", "--resume", "runs/x/y", "--plugin", "breaks.py"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def two(fork: Forker, folder: Path, words: list[str], without: Sequence[Hook] = ()) -> tuple[list[int], str]:
    """Exit codes of both ranks, which end within sixty seconds, and what they said."""
    ranks = fork.ranks(folder, words, {"FTLAB_CACHE": str(folder / "cache")}, {0: without, 1: without}, modes=True)
    ended = codes(ranks)
    return ended, "".join(rank.text for rank in ranks)


def wrong(ended: list[int], said: str, sentence: str) -> list[str]:
    """What is not as it must be when a folder could not be written."""
    found = [] if ended == [8, 8] else [f"exit codes {ended}"]
    found += [] if said.count("ftlab: error:") == 1 else ["both ranks spoke, or none"]
    return found + ([] if sentence in said.splitlines()[-1] and "Traceback" not in said else [f"said {said[-500:]}"])


def test_a_full_disk_ends_both(fork: Forker, tmp_path: Path, small: Path) -> None:
    """S1."""
    words = breaking(tmp_path, "fill", 3, small, root=small)
    assert wrong(*two(fork, tmp_path, words), "cannot be written (No space left on device; it needs ") == []
    assert steps(small / "x" / "y" / "checkpoints") == [1, 2]


def test_both_go_on_until_there_is_room_again(fork: Forker, tmp_path: Path, small: Path) -> None:
    """S1: save.on_error is continue."""
    words = breaking(tmp_path, "fill", 2, small, root=small, until=4, on_error="continue")
    ended, said = two(fork, tmp_path, words)
    assert ended == [0, 0], said
    assert said.count("(save.on_error: continue)") == 2
    assert steps(small / "x" / "y" / "checkpoints") == [4, 5]


def test_a_run_folder_that_was_never_to_be_written(fork: Forker, tmp_path: Path) -> None:
    """S4: each rank finds out for itself, before the model is loaded."""
    (tmp_path / "runs").mkdir(mode=0o555)
    ended, said = two(fork, tmp_path, breaking(tmp_path, "none", 0, tmp_path))
    assert ended == [8, 8], said
    assert said.splitlines() == [f"ftlab: error: run folder {tmp_path}/runs/x/y cannot be written (Permission denied); {REMEDY}"] * 2


@pytest.mark.parametrize("what", ["close", pytest.param("block", marks=pytest.mark.slow)])
def test_a_folder_that_can_no_longer_be_written(fork: Forker, tmp_path: Path, what: str) -> None:
    """S5, by mode and by something else under the name; S4 on resume, before the first step."""
    run = tmp_path / "runs" / "x" / "y"
    words = breaking(tmp_path, what, 3, run if what == "close" else run / "checkpoints")
    assert wrong(*two(fork, tmp_path, words), "cannot be written (") == []
    assert steps(run / ("checkpoints" if what == "close" else "checkpoints.away")) == [1, 2]
    if what == "close":
        run.chmod(0o700)
        sentence = f"run folder {run}/checkpoints cannot be written (Permission denied); {REMEDY}"
        assert wrong(*two(fork, tmp_path, RESUME), sentence) == []
        assert (run / "metrics.jsonl").read_text().count("train_loss") == 2  # of the steps that are saved


def test_a_folder_that_was_deleted_is_made_again(fork: Forker, tmp_path: Path) -> None:
    """S6."""
    run = tmp_path / "runs" / "x" / "y"
    ended, said = two(fork, tmp_path, breaking(tmp_path, "delete", 2, run / "checkpoints"))
    assert ended == [0, 0], said
    assert steps(run / "checkpoints") == [4, 5]


def test_a_rank_that_is_not_told_does_not_end_so(fork: Forker, tmp_path: Path) -> None:
    """S1, S4, S5, control: rank 0 keeps to itself what it met."""
    run = tmp_path / "runs" / "x" / "y"
    words = breaking(tmp_path, "close", 3, run)
    ended, said = two(fork, tmp_path, words, [Hook("lightning.pytorch.strategies:DDPStrategy.broadcast", signal=0)])
    assert wrong(ended, said, "cannot be written (") != []


WITHOUT = """
import ftlab.cli
ftlab.cli.end_ranks = lambda trainer, error: None
"""


@pytest.mark.slow
@pytest.mark.parametrize("control", [False, True])
def test_what_rank_0_alone_meets_ends_the_ranks_that_lightning_started(tmp_path: Path, control: bool) -> None:
    """S6, the whole run deleted, and its control: rank 1 waits, and ends with a fault of its own."""
    words = [*breaking(tmp_path, "delete", 2, tmp_path / "runs"), "--trainer.log_every_n_steps", "1", "--trainer.strategy", "ddp"]
    with (tmp_path / "breaks.py").open("a") as file:
        file.write(WITHOUT if control else "")
    environment = {**os.environ, "FTLAB_CACHE": str(tmp_path / "cache")}
    with (tmp_path / "out.txt").open("w") as out, subprocess.Popen(
        [sys.executable, "-m", "ftlab", *words, "--trainer.devices", "2"],
        cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        code = process.wait(timeout=60)
    begun = time.monotonic()
    while control and processes_of(process.pid):
        assert time.monotonic() - begun < PATIENCE
    assert processes_of(process.pid) == {}
    said = (tmp_path / "out.txt").read_text()
    assert code == 8, said
    assert ("bug or unexpected fault" in said) == control
