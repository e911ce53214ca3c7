"""Disks that are full, folders that vanish, and two processes on one run (S1-S3, S5, S6, S9)."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.breaking import breaking, steps
from tests.faults.conftest import Result, Run
from tests.unit.test_lock import holder


def fit(warm: Run, folder: Path, what: str, step: int, target: Path, root: Path | None = None, **more: Any) -> Result:
    save = more.pop("save", {})
    set_here = {key: more.pop(key) for key in ("until", "steps") if key in more}
    return warm(*breaking(folder, what, step, target, root, **set_here, **save), **more)


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


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(folder: Path, warm: Run, small: Path) -> None:
    """S1."""
    result = fit(warm, folder, "fill", 3, small, root=small)
    assert result.code == 8, result.err
    assert re.search(r"cannot be written \(No space left on device; it needs [\d,]+ bytes, [\d,]+ are free\)", result.err.splitlines()[-1])
    checkpoints = small / "x" / "y" / "checkpoints"
    assert steps(checkpoints) == [1, 2]
    assert not list(checkpoints.glob(".*.tmp"))
    (small / "filler").unlink()
    result = warm("fit", "--resume", str(small / "x" / "y"), "--plugin", "breaks.py", env={"FTLAB_CACHE": str(folder / "cache")})
    assert "after step 2" in result.err


def test_a_run_may_go_on_until_there_is_room_again(folder: Path, warm: Run, small: Path) -> None:
    """S1: save.on_error is continue."""
    result = fit(warm, folder, "fill", 2, small, root=small, until=4, save={"on_error": "continue"})
    assert result.code == 0, result.err
    assert result.err.count("(save.on_error: continue)") == 2
    assert steps(small / "x" / "y" / "checkpoints") == [4, 5]


def test_a_run_does_not_end_well_without_its_last_checkpoint(folder: Path, warm: Run, small: Path) -> None:
    """S1: with nothing to continue to."""
    result = fit(warm, folder, "fill", 4, small, root=small, save={"on_error": "continue"})
    assert result.code == 8, result.err
    assert steps(small / "x" / "y" / "checkpoints") == [2, 3]


def test_room_for_all_checkpoints_is_asked_for_before_the_first_step(folder: Path, warm: Run, small: Path) -> None:
    """S2."""
    result = fit(warm, folder, "none", 0, small, root=small, save={"keep": 50})
    assert result.code == 8, result.err
    assert "52 checkpoints need about" in result.err.splitlines()[-1]
    assert "lower save.keep" in result.err.splitlines()[-1]
    assert not list((small / "x" / "y" / "checkpoints").iterdir())


def test_without_the_question_the_run_begins(folder: Path, warm: Run, small: Path) -> None:
    """S2, control."""
    without = ["ftlab.callbacks.checkpoints:Checkpoints._check_space"]
    result = fit(warm, folder, "none", 0, small, root=small, save={"keep": 50}, without=without)
    assert result.code == 0, result.err


def test_the_folder_for_temporary_files_is_not_needed(folder: Path, warm: Run, small: Path) -> None:
    """S3, where an ordinary temporary file cannot be written."""
    with (small / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"), tempfile.TemporaryFile(dir=small, buffering=0) as file:
        file.write(bytes(4096))
    result = fit(warm, folder, "none", 0, small, env={"TMPDIR": str(small)})
    assert result.code == 0, result.err
    assert steps(folder / "runs" / "x" / "y" / "checkpoints") == [4, 5]


@pytest.mark.parametrize("last", [False, True])
def test_a_folder_that_cannot_be_written_any_more_ends_the_run(folder: Path, warm: Run, last: bool) -> None:
    """S5: something else has its name."""
    checkpoints = folder / "runs" / "x" / "y" / "checkpoints"
    result = fit(warm, folder, "block", 5 if last else 3, checkpoints)
    assert result.code == 8, result.err
    assert "Traceback" not in result.err
    assert steps(Path(f"{checkpoints}.away")) == ([3, 4] if last else [1, 2])


def test_a_folder_that_comes_back_is_used_again(folder: Path, warm: Run) -> None:
    """S5: retried, as save.on_error has it."""
    checkpoints = folder / "runs" / "x" / "y" / "checkpoints"
    result = fit(warm, folder, "block", 2, checkpoints, until=4, save={"on_error": "continue"})
    assert result.code == 0, result.err
    assert result.err.count("(save.on_error: continue)") == 2
    assert steps(checkpoints) == [4, 5]


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_that_was_deleted_is_made_again_or_ends_the_run(folder: Path, warm: Run, whole: bool) -> None:
    """S6."""
    run = folder / "runs" / "x" / "y"
    result = fit(warm, folder, "delete", 2, run if whole else run / "checkpoints")
    assert result.code in ((0, 8) if whole else (0,)), result.err
    assert "Traceback" not in result.err
    if result.code == 0:
        assert steps(run / "checkpoints") == [4, 5]


def test_two_processes_do_not_work_on_one_run(folder: Path, warm: Run) -> None:
    """S9."""
    run = folder / "runs" / "x" / "y"
    assert fit(warm, folder, "block", 4, run / "checkpoints").code == 8
    (run / "checkpoints").unlink()
    os.rename(f"{run / 'checkpoints'}.away", run / "checkpoints")
    metrics = (run / "metrics.jsonl").read_bytes()
    words = ("fit", "--resume", str(run), "--plugin", "breaks.py", "--override-resume", "model.*", "--model.tuning.what", "none")
    with holder(run) as process:
        result = warm(*words)
        assert result.code == 8, result.err
        assert f"is locked by process {process.pid} on " in result.err.splitlines()[-1]
        process.kill()
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert steps(run / "checkpoints") == [2, 3]


def test_a_link_under_the_lock_is_refused(folder: Path, warm: Run) -> None:
    (folder / "precious").write_text("mine")
    assert fit(warm, folder, "none", 0, folder).code == 0
    run = folder / "runs" / "x" / "y"
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(folder / "precious")
    result = warm("fit", "--resume", str(run), "--trainer.max_steps", "6", "--plugin", "breaks.py")
    assert result.code == 8, result.err
    assert (folder / "precious").read_text() == "mine"


def test_what_a_killed_process_left_is_removed_on_resume(folder: Path, warm: Run) -> None:
    """R7."""
    assert fit(warm, folder, "none", 0, folder).code == 0
    checkpoints = folder / "runs" / "x" / "y" / "checkpoints"
    left = [checkpoints / ".step-00000009.ckpt.00.tmp", checkpoints / ".manifest.json.00.tmp", checkpoints / "step-00000009.ckpt"]
    for path in left:
        path.write_bytes(b"half")
    result = warm("fit", "--resume", str(checkpoints.parent), "--trainer.max_steps", "6", "--plugin", "breaks.py")
    assert result.code == 0, result.err
    assert not any(path.exists() for path in left)


def test_nobody_else_may_read_a_runs_checkpoints(folder: Path, warm: Run) -> None:
    assert fit(warm, folder, "none", 0, folder).code == 0
    files = [p for p in (folder / "runs" / "x" / "y" / "checkpoints").iterdir() if not p.is_symlink()]
    assert len(files) == 3
    assert {p.stat().st_mode & 0o077 for p in files} == {0}
