"""Disks that are full, folders that vanish, and two processes on one run (S1-S3, S5, S6, S9)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab import checkpoint_io
from ftlab.checkpoint_io import Manifest
from tests.faults.conftest import GOOD, Result, Run
from tests.unit.test_lock import holder

PLUGIN = '''
import os, shutil
from dataclasses import dataclass
from pathlib import Path
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Breaks(TuningStrategy):
    """Does something to a folder after a step.

    Args:
        what: What it does.
        step: When.
        folder: Where.
        until: When it is mended.
    """

    what: str
    step: int
    folder: str
    until: int = 0

    def apply(self, model, heads):
        model.requires_grad_(False)
        model.model.layers[0].self_attn.q_proj.requires_grad_(True)
        return model

    def save(self, model, folder):
        (folder / "nothing.txt").write_text("the file system of these tests has no room for a model")

    def on_step(self, model, step, total):
        folder = Path(self.folder)
        if step == self.until and self.what == "block":
            folder.unlink()
            os.rename(f"{folder}.away", folder)
        if step == self.until and self.what == "fill":
            (folder / "filler").unlink()
        if step != self.step:
            return
        if self.what == "delete":
            shutil.rmtree(folder)
        if self.what == "block":
            os.rename(folder, f"{folder}.away")
            folder.write_text("")
        if self.what == "fill":
            with (folder / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    file.truncate(file.tell() - 16384)  # room for a line of the log
'''


def fit(warm: Run, folder: Path, what: str, step: int, target: Path, root: Path | None = None, **more: Any) -> Result:
    (folder / "breaks.py").write_text(PLUGIN)
    arguments = {"what": what, "step": step, "folder": str(target), "until": more.pop("until", 0)}
    config = {
        **GOOD,
        "model": {**GOOD["model"], "tuning": {"class_path": "Breaks", "init_args": arguments}},
        "data": {**GOOD["data"], "batch_size": 2},
        "trainer": {"max_steps": more.pop("steps", 5), "max_epochs": None, "accelerator": "cpu"},
        "save": {"every_n_steps": 1, "keep": 2, **more.pop("save", {})},
        "run": {"root": str(root or folder / "runs"), "name": "x", "id": "y"},
    }
    (folder / "breaks.yaml").write_text(yaml.safe_dump(config))
    return warm("fit", "--config", "breaks.yaml", "--plugin", "breaks.py", **more)


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


def steps(checkpoints: Path) -> list[int]:
    """The steps of the checkpoints that verify."""
    manifest = Manifest.read(checkpoints)
    return sorted(e.step for name, e in manifest.files.items() if checkpoint_io.problem(checkpoints / name) is None)


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(folder: Path, warm: Run, small: Path) -> None:
    result = fit(warm, folder, "fill", 3, small, root=small)
    assert result.code == 8, result.err
    assert "cannot be written (No space left on device; " in result.err.splitlines()[-1]
    assert "bytes are free" in result.err.splitlines()[-1]
    checkpoints = small / "x" / "y" / "checkpoints"
    assert steps(checkpoints) == [1, 2]
    assert not list(checkpoints.glob(".*.tmp"))
    (small / "filler").unlink()
    result = warm("fit", "--resume", str(small / "x" / "y"), "--plugin", "breaks.py", env={"FTLAB_CACHE": str(folder / "cache")})
    assert "after step 2" in result.err


def test_a_run_may_go_on_until_there_is_room_again(folder: Path, warm: Run, small: Path) -> None:
    result = fit(warm, folder, "fill", 2, small, root=small, until=4, save={"on_error": "continue"})
    assert result.code == 0, result.err
    assert result.err.count("(save.on_error: continue)") == 2
    assert steps(small / "x" / "y" / "checkpoints") == [4, 5]


def test_a_run_does_not_end_well_without_its_last_checkpoint(folder: Path, warm: Run, small: Path) -> None:
    result = fit(warm, folder, "fill", 4, small, root=small, save={"on_error": "continue"})
    assert result.code == 8, result.err
    assert steps(small / "x" / "y" / "checkpoints") == [2, 3]


def test_room_for_all_checkpoints_is_asked_for_before_the_first_step(folder: Path, warm: Run, small: Path) -> None:
    result = fit(warm, folder, "none", 0, small, root=small, save={"keep": 50})
    assert result.code == 8, result.err
    assert "52 checkpoints need about" in result.err.splitlines()[-1]
    assert "lower save.keep" in result.err.splitlines()[-1]
    assert not list((small / "x" / "y" / "checkpoints").iterdir())


def test_the_folder_for_temporary_files_is_not_needed(folder: Path, warm: Run, small: Path) -> None:
    with (small / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    result = fit(warm, folder, "none", 0, small, env={"TMPDIR": str(small)})
    assert result.code == 0, result.err
    assert steps(folder / "runs" / "x" / "y" / "checkpoints") == [4, 5]


@pytest.mark.parametrize("last", [False, True])
def test_a_folder_that_cannot_be_written_any_more_ends_the_run(folder: Path, warm: Run, last: bool) -> None:
    checkpoints = folder / "runs" / "x" / "y" / "checkpoints"
    result = fit(warm, folder, "block", 5 if last else 3, checkpoints)
    assert result.code == 8, result.err
    assert "Traceback" not in result.err
    assert steps(Path(f"{checkpoints}.away")) == ([3, 4] if last else [1, 2])


def test_a_folder_that_comes_back_is_used_again(folder: Path, warm: Run) -> None:
    checkpoints = folder / "runs" / "x" / "y" / "checkpoints"
    result = fit(warm, folder, "block", 2, checkpoints, until=4, save={"on_error": "continue"})
    assert result.code == 0, result.err
    assert result.err.count("(save.on_error: continue)") == 2
    assert steps(checkpoints) == [4, 5]


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_that_was_deleted_is_made_again_or_ends_the_run(folder: Path, warm: Run, whole: bool) -> None:
    run = folder / "runs" / "x" / "y"
    result = fit(warm, folder, "delete", 2, run if whole else run / "checkpoints")
    assert result.code in ((0, 8) if whole else (0,)), result.err
    assert "Traceback" not in result.err
    if result.code == 0:
        assert steps(run / "checkpoints") == [4, 5]


def test_two_processes_do_not_work_on_one_run(folder: Path, warm: Run) -> None:
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
