"""What `--resume` finds: a run, its newest good checkpoint, or a reason to refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.processes import Forker, Hook
from tests.faults.small_run import Place, Reference, again, differences, killed, resumed

STEP = "ftlab.module:FinetuneModule"
SLURM = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


class TestTargets:
    """R14–R17, and what is no run."""

    def test_a_folder_that_is_no_run(self, fork: Forker, tmp_path: Path) -> None:
        code, said = fork.run(tmp_path, ["fit", "--resume", "."])
        assert code == 2
        assert "ftlab: error: --resume . is not the folder of a run: it has no config.yaml; name runs/NAME/ID." in said

    def test_automatic_without_names(self, fork: Forker, tmp_path: Path) -> None:
        place = Place(tmp_path / "run")
        code, said = fork.run(place.folder, ["fit", "--config", "config.yaml", "--resume", "auto"])
        assert code == 2
        assert "--resume auto needs run.name and run.id" in said  # R14: of two runs none is taken for the newest

    def test_automatic_begins_then_finds_the_run_complete(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R14, R15."""
        place = Place(tmp_path / "run")
        assert fork.run(place.folder, place.again, place.env)[0] == 0
        assert differences(place, whole) == []
        files = {p: p.stat().st_mtime_ns for p in place.run.rglob("*")}
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0
        assert f"{place.run} is already complete" in said
        assert {p: p.stat().st_mtime_ns for p in place.run.rglob("*")} == files
        assert fork.run(place.folder, place.again, place.env, [Hook("ftlab.commands.resume:complete", signal=0)])[0] == 0
        assert {p: p.stat().st_mtime_ns for p in place.run.rglob("*")} != files

    def test_a_damaged_newest_checkpoint_is_passed_over(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R14."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        newest = max((place.run / "checkpoints").glob("step-*.ckpt"))
        newest.write_bytes(newest.read_bytes()[:-1])
        assert resumed(fork, again(place, tmp_path / "control"), without="ftlab.checkpoint_io:problem")[0] == 4
        code, said = resumed(fork, place)
        assert code == 0
        assert f"{newest.name} has" in said
        assert differences(place, whole) == []

    def test_only_damaged_checkpoints(self, fork: Forker, stopped: Place, tmp_path: Path) -> None:
        """R14: it is not taken for a new run; its control is the test before."""
        place = again(stopped, tmp_path / "run")
        for path in (place.run / "checkpoints").glob("step-*.ckpt"):
            path.write_bytes(b"")
        code, said = resumed(fork, place)
        assert code == 4
        assert "no checkpoint in" in said

    def test_the_clock_has_no_say(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R17: the newest checkpoint is the oldest file."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        newest = max((place.run / "checkpoints").glob("step-*.ckpt"))
        os.utime(newest, (0, 0))
        assert max((place.run / "checkpoints").glob("step-*.ckpt"), key=lambda path: path.stat().st_mtime) != newest
        before = len(place.trace())
        assert resumed(fork, place)[0] == 0
        assert place.trace()[before]["step"] == 6  # the first micro-batch of a window of two, after six steps
        assert differences(place, whole) == []

    @pytest.mark.parametrize("own_folder", [False, True])
    def test_another_runs_file_of_a_scheduler(
        self, fork: Forker, stopped: Place, tmp_path: Path, whole: Reference, own_folder: bool
    ) -> None:
        """R16: under SLURM Lightning takes such a file from the trainer's folder where no checkpoint is named."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=2))
        stranger = (stopped.run / "checkpoints" / "last.ckpt").read_bytes()
        ((place.run if own_folder else place.folder) / "hpc_ckpt_9.ckpt").write_bytes(stranger)
        control = again(place, tmp_path / "control") if own_folder else None
        code, said = fork.run(place.folder, place.again, {**place.env, **SLURM})
        if control is None:
            assert code == 0, said
            assert differences(place, whole) == []
            return
        assert code == 4, said  # what lies among a run's own files is not silently left aside
        assert "hpc_ckpt_9.ckpt is not listed in " in said
        code, said = fork.run(control.folder, control.again, {**control.env, **SLURM}, [Hook("ftlab.checkpoint_io:problem", signal=0)])
        assert code == 0, said
        assert control.trace()[1]["epoch"] > 0  # the first micro-batch after the kill: Lightning has taken it
