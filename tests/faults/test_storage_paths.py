"""S4, S5, S8: folders whose mode forbids writing, and folders with unusual names, in one process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.faults.breaking import breaking, steps
from tests.faults.processes import Forker, Hook
from tests.faults.test_storage_ranks import REMEDY, RESUME

COMMON = "all of it"
NAMES = {
    COMMON: "-- a  run, lr=0.1 · Läufe 🏃 " + "n" * 222,
    "spaces": "a folder  of runs",
    "unicode": "Läufe·モデル·🏃",
    "255 bytes": "n" * 255,
    "equals": "lr=0.1",
    "dashes": "--run",
}


@pytest.mark.parametrize("name", [n if n == COMMON else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_a_run_in_a_folder_of_that_name(fork: Forker, tmp_path: Path, name: str) -> None:
    """S8: begun, and continued, with the name on the command line."""
    place = tmp_path / NAMES[name]
    place.mkdir()
    env = {"FTLAB_CACHE": str(tmp_path / "cache")}
    words = breaking(place, "none", 0, place, steps=2)
    config, root = f"{NAMES[name]}/breaks.yaml", f"./{NAMES[name]}/runs"
    plugin = f"./{NAMES[name]}/breaks.py"
    code, said = fork.run(tmp_path, ["fit", f"--config=./{config}", "--plugin", plugin, f"--run.root={root}"], env)
    assert code == 0, said
    run = place / "runs" / "x" / "y"
    assert steps(run / "checkpoints") == [1, 2]
    code, said = fork.run(tmp_path, ["fit", "--resume", f"{root}/x/y", "--trainer.max_steps", "3", "--plugin", plugin], env)
    assert code == 0, said
    assert steps(run / "checkpoints") == [2, 3]
    assert words[0] == "fit"


@pytest.mark.parametrize("key", ["run.name", "run.id"])
@pytest.mark.parametrize("value", ["../up", "a b", "a/b", "Läufe", "lr=0.1", "n" * 255])
def test_a_name_that_a_run_cannot_have(fork: Forker, folder: Path, key: str, value: str) -> None:
    """S8: the names that ftlab makes folders of are letters and digits, and nothing is filled into them."""
    code, said = fork.run(folder, ["fit", "--config", "good.yaml", f"--{key}={value}"])
    assert code == 2, said
    assert f"{key} is {value!r}; use letters, digits" in said
    assert not (folder / "runs").exists()


def test_without_the_check_such_a_name_leads_out_of_the_folder(fork: Forker, folder: Path) -> None:
    """S8, control."""
    off = Hook("ftlab.run_folder:RunOptions.__post_init__", signal=0)
    code, said = fork.run(folder, ["fit", "--config", "good.yaml", "--run.name=../up", "--run.id", "y"], None, [off])
    assert code == 0, said
    assert (folder / "up" / "y" / "summary.json").is_file()


@pytest.mark.slow
def test_an_export_to_a_folder_with_the_longest_name(fork: Forker, folder: Path) -> None:
    """S8."""
    env = {"FTLAB_CACHE": str(folder / "cache")}
    code, said = fork.run(folder, ["fit", "--config", "good.yaml", "--run.name", "x", "--run.id", "y"], env)
    assert code == 0, said
    target = folder / ("e=" + "x" * 253)
    code, said = fork.run(folder, ["export", "runs/x/y", "--checkpoint", "last", "--to", str(target)], env)
    assert code == 0, said
    assert (target / "adapter_model.safetensors").is_file()


def test_a_folder_that_was_never_to_be_written(fork: Forker, tmp_path: Path) -> None:
    """S4: by mode."""
    (tmp_path / "runs").mkdir(mode=0o555)
    code, said = fork.run(tmp_path, breaking(tmp_path, "none", 0, tmp_path), modes=True)
    assert code == 8
    assert said.splitlines() == [f"ftlab: error: run folder {tmp_path}/runs/x/y cannot be written (Permission denied); {REMEDY}"]


def test_an_immutable_folder(fork: Forker, tmp_path: Path) -> None:
    """S4: by chattr +i, which binds root too."""
    (tmp_path / "runs").mkdir()
    if subprocess.run(["chattr", "+i", str(tmp_path / "runs")], capture_output=True, check=False).returncode:
        pytest.skip("this file system or user has no chattr +i")
    try:
        code, said = fork.run(tmp_path, breaking(tmp_path, "none", 0, tmp_path))
    finally:
        subprocess.run(["chattr", "-i", str(tmp_path / "runs")], check=True)
    assert code == 8
    assert said.splitlines() == [f"ftlab: error: run folder {tmp_path}/runs/x/y cannot be written (Operation not permitted); {REMEDY}"]


TRIED = ("ftlab.callbacks.checkpoints:try_writing", "ftlab.callbacks.checkpoints:Checkpoints._mend")
"""What writes before the first step: the attempt, and the links that a killed process may have left behind the manifest."""


@pytest.mark.parametrize("without", [(), TRIED])
def test_a_closed_folder_of_checkpoints_is_found_before_the_first_step(fork: Forker, tmp_path: Path, without: tuple[str, ...]) -> None:
    """S4 on resume, and its control: without any attempt to write a step is made for nothing."""
    env = {"FTLAB_CACHE": str(tmp_path / "cache"), "FTLAB_TRACE": str(tmp_path)}
    assert fork.run(tmp_path, breaking(tmp_path, "none", 0, tmp_path, steps=2), env)[0] == 0
    checkpoints = tmp_path / "runs" / "x" / "y" / "checkpoints"
    checkpoints.chmod(0o555)
    hooks = [Hook(target, signal=0) for target in without]
    code, said = fork.run(tmp_path, [*RESUME, "--trainer.max_steps", "4"], env, hooks, modes=True)
    assert code == 8, said
    made = [json.loads(line)["step"] for line in (tmp_path / "rank0.jsonl").read_text().splitlines()]
    before_the_first = said.rstrip().endswith(f"run folder {checkpoints} cannot be written (Permission denied); {REMEDY}")
    assert (before_the_first, made == [1, 2]) == ((False, False) if without else (True, True))


def test_what_cannot_be_deleted_is_no_crash(fork: Forker, tmp_path: Path) -> None:
    """S5: what a killed process left lies in a folder that is closed by now."""
    env = {"FTLAB_CACHE": str(tmp_path / "cache")}
    assert fork.run(tmp_path, breaking(tmp_path, "none", 0, tmp_path, steps=1), env)[0] == 0
    stray = tmp_path / "runs" / "x" / "y" / "checkpoints" / ".step-00000002.ckpt.00.tmp"
    stray.touch()
    stray.parent.chmod(0o555)
    code, said = fork.run(tmp_path, [*RESUME, "--trainer.max_steps", "2"], env, modes=True)
    assert code == 8, said
    assert said.splitlines()[-1].startswith(f"ftlab: error: {stray} cannot be deleted (Permission denied); mend the folder")


@pytest.mark.parametrize("last", [False, True])
def test_a_folder_that_becomes_read_only(fork: Forker, tmp_path: Path, last: bool) -> None:
    """S5: by mode, in the middle and at the last step, and its control: a save that does nothing ends another way."""
    run = tmp_path / "runs" / "x" / "y"
    env = {"FTLAB_CACHE": str(tmp_path / "cache")}
    code, said = fork.run(tmp_path, breaking(tmp_path, "close", 5 if last else 3, run), env, modes=True)
    assert code == 8, said
    assert "cannot be written (Permission denied; it needs " in said.splitlines()[-1]
    assert "Traceback" not in said
    assert steps(run / "checkpoints") == ([3, 4] if last else [1, 2])


def test_a_save_that_does_nothing_would_be_seen(fork: Forker, tmp_path: Path) -> None:
    """S1, S5, S6, control."""
    run = tmp_path / "runs" / "x" / "y"
    hook = Hook("ftlab.checkpoint_io:VerifiedCheckpointIO.save_checkpoint", signal=0)
    code, said = fork.run(tmp_path, breaking(tmp_path, "close", 3, run), {"FTLAB_CACHE": str(tmp_path / "cache")}, [hook], modes=True)
    assert (code, steps(run / "checkpoints")) != (8, [1, 2]), said


def test_a_folder_that_is_opened_again(fork: Forker, tmp_path: Path) -> None:
    """S5: retried, as save.on_error has it."""
    run = tmp_path / "runs" / "x" / "y"
    words = breaking(tmp_path, "close", 2, run / "checkpoints", until=4, on_error="continue")
    code, said = fork.run(tmp_path, words, {"FTLAB_CACHE": str(tmp_path / "cache")}, modes=True)
    assert code == 0, said
    assert said.count("(save.on_error: continue)") == 2
    assert steps(run / "checkpoints") == [4, 5]


def test_a_limit_on_the_size_of_files(fork: Forker, tmp_path: Path) -> None:
    """S1: as `ulimit -f` sets it, which needs no file system of one's own."""
    (tmp_path / "20480").mkdir()
    env = {"FTLAB_CACHE": str(tmp_path / "cache")}
    code, said = fork.run(tmp_path, breaking(tmp_path, "limit", 3, tmp_path / "20480"), env)
    assert code == 8, said
    assert "cannot be written (File too large; it needs " in said.splitlines()[-1]
    checkpoints = tmp_path / "runs" / "x" / "y" / "checkpoints"
    assert steps(checkpoints) == [1, 2]
    assert not list(checkpoints.glob(".*.tmp"))
