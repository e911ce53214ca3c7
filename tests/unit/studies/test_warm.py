"""Trials that are forked: each is the run that it would be alone, and none harms another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlab.commands.verify import equal
from ftlab.errors import StorageError
from ftlab.studies import warm as module
from ftlab.studies.warm import Child, Warm, alone
from tests.conftest import Command

ROWS = json.dumps({"train": [{"text": f"row {i} of a few", "label": i % 2} for i in range(6)], "val": [{"text": "one", "label": 0}]})
TRIAL = (
    "fit", "--model.backbone.name", "ftlab/tiny-bert", "--model.task", "SequenceClassification", "--model.task.labels", '["0","1"]',
    "--model.optimizer", "AdamW", "--model.optimizer.lr", "1e-3", "--data.source", "Rows", "--data.source.items", ROWS,
    "--data.batch_size", "2", "--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1", "--run.name", "v",
)  # fmt: skip
LORA = ("--model.tuning", "LoRA", "--model.tuning.r", "2", "--model.tuning.dropout", "0.5")
FULL = ("--model.tuning", "Full")
ODD = """
import os, signal, subprocess, sys, time
from dataclasses import dataclass
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Odd(TuningStrategy):
    \"\"\"Nothing.\"\"\"

    def apply(self, model, heads):
        return model

DO
"""
BEGET = "print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
CRASH = f"{BEGET}; os.kill(os.getpid(), signal.SIGSEGV)"
HANG = f"{BEGET}; time.sleep(600)"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm() as made:
        yield made


def ended(child: Child) -> int:
    until = time.monotonic() + PATIENCE
    while (code := child.poll()) is None and time.monotonic() < until:
        time.sleep(0.02)
    assert code is not None, "it hangs"
    return code


def odd(folder: Path, what: str) -> list[str]:
    """A command whose plugin does something when it is imported."""
    path = folder / "odd.py"
    path.write_text(ODD.replace("DO", what))
    return ["fit", "--plugin", str(path), "--model.tuning", "Odd"]


def said(path: Path) -> str:
    """The first whole line of a log; waits for it."""
    until = time.monotonic() + PATIENCE
    while "\n" not in (text := path.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    return text.partition("\n")[0]


def gone(pid: int) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def result(root: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a run logged, without times, and its checkpoint."""
    lines = [json.loads(line) for line in (root / "v" / name / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if "loss" in k or "accuracy" in k or k in ("step", "lr")} for line in lines]
    assert sum("train_loss" in f for f in figures) == 3
    checkpoint = torch.load(root / "v" / name / "checkpoints" / "last.ckpt", weights_only=True)
    return figures, {k: checkpoint[k] for k in ("state_dict", "optimizer_states", "lr_schedulers", "ftlab")}


def compare(warm: Warm, alone: Command, folder: Path) -> None:
    """Run trials that differ in strategy and seed in both ways; nothing may differ in what they leave."""
    trials = {"a": (*LORA, "--seed_everything", "1"), "b": (*LORA, "--seed_everything", "2"), "c": (*FULL, "--seed_everything", "2")}
    for name, words in trials.items():
        child = warm.start([*TRIAL, *words, "--run.root", str(folder / "warm"), "--run.id", name], folder / name)
        assert ended(child) == 0, (folder / name).read_text()
        assert (child.cpu_seconds() or 0) > 0.1
        held = "the base was read for an earlier trial" in (folder / name).read_text()
        assert held == (name != "a"), "the first one reads the base, which all others have"
    for name, words in trials.items():
        done = alone(*TRIAL, *words, "--run.root", str(folder / "alone"), "--run.id", name)
        assert done.returncode == 0, done.stderr
        found, expected = result(folder / "warm", name), result(folder / "alone", name)
        assert found[0] == expected[0], name
        assert equal(found[1], expected[1]), name
    assert result(folder / "warm", "a")[0] != result(folder / "warm", "b")[0]


@pytest.mark.slow
def test_a_trial_is_the_run_that_it_would_be_alone(warm: Warm, ftlab: Command, tmp_path: Path) -> None:
    compare(warm, ftlab, tmp_path)


@pytest.mark.slow
def test_a_trial_is_that_of_a_new_interpreter_with_several_threads(fresh: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with Warm() as warm:
        compare(warm, fresh, tmp_path)


def test_output_and_exit_code_are_the_commands(warm: Warm, tmp_path: Path) -> None:
    log = tmp_path / "folder" / "log"
    assert ended(warm.start(["--version"], log)) == 0
    assert ended(warm.start(["fitt"], log)) == 2
    first, second = log.read_text().splitlines()
    assert first.startswith("ftlab ")
    assert second.startswith("ftlab: error: ftlab has no command 'fitt'")


SRUN = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "ftlab", "SLURM_NNODES": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "4", "PMI_RANK": "1",
}  # fmt: skip
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}


@pytest.mark.parametrize(("environment", "kept"), [(SRUN, {"SLURM_JOB_ID", "SLURM_JOB_NAME"}), (TORCHRUN, set())], ids=["srun", "torchrun"])
def test_a_trial_is_no_rank_of_what_started_the_runner(
    environment: dict[str, str], kept: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning.fabric.utilities.rank_zero import _get_rank

    def detected() -> list[object]:
        return [SLURMEnvironment.detect() or TorchElasticEnvironment.detect(), _get_rank()]

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert detected() == [True, 1]
    begun: list[dict[str, str]] = []

    def popen(command: list[str], env: dict[str, str] | None = None, **options: object) -> subprocess.Popen[bytes]:
        begun.append(dict(os.environ) if env is None else env)
        return subprocess.Popen([sys.executable, "-c", ""])

    with monkeypatch.context() as patched:
        patched.setattr(module, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=None, TimeoutExpired=subprocess.TimeoutExpired))
        with Warm() as warm:
            warm.start(["--version"], tmp_path / "log")
    [found] = begun
    assert found == alone({**os.environ})
    for name in environment.keys() - found.keys():
        monkeypatch.delenv(name)
    assert environment.keys() & found.keys() == kept
    assert detected() == [False, None]


def test_a_crash_ends_one_trial_alone(warm: Warm, tmp_path: Path) -> None:
    words = odd(tmp_path, CRASH)
    first, second = warm.start(words, tmp_path / "a"), warm.start(["--version"], tmp_path / "b")
    assert (ended(first), ended(second)) == (-signal.SIGSEGV, 0)
    assert gone(int(said(tmp_path / "a"))), "what it had started ends with it"


def test_every_fork_draws_random_numbers_of_its_own(warm: Warm, tmp_path: Path) -> None:
    words = odd(tmp_path, "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())")
    assert [ended(warm.start(words, tmp_path / name)) for name in "ab"] == [2, 2], "this fit has no data"
    first, second = (said(tmp_path / name).split() for name in "ab")
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_signals_do_what_they_do_to_a_command(warm: Warm, tmp_path: Path) -> None:
    asked = "print(signal.getsignal(2) == signal.default_int_handler, signal.getsignal(17) == 0, os.getpgid(0) == os.getpid())"
    assert ended(warm.start(odd(tmp_path, asked), tmp_path / "a")) == 2
    assert said(tmp_path / "a") == "True True True"
    child = warm.start(odd(tmp_path, f"signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); {HANG}"), tmp_path / "b")
    said(tmp_path / "b")
    child.terminate()
    assert ended(child) == 7


def test_a_trial_that_hangs_is_killed_with_what_it_started(warm: Warm, tmp_path: Path) -> None:
    child = warm.start(odd(tmp_path, f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {HANG}"), tmp_path / "log")
    sleeper = int(said(tmp_path / "log"))
    child.kill()
    assert ended(child) == -signal.SIGKILL
    assert gone(sleeper)
    child.kill()  # nothing is left to kill


def test_a_trial_begins_when_it_is_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    with Warm() as warm:
        child = warm.start(["--version"], tmp_path / "log")
        child.kill()  # while the process that should fork it still imports
        assert (ended(child), child.cpu_seconds(), child.forked) == (-signal.SIGKILL, None, None)
        asked = time.monotonic()
        child = warm.start(["--version"], tmp_path / "log")
        assert (child.forked, ended(child)) == (None, 0)
        assert child.forked is not None
        assert asked + 0.5 < child.forked < time.monotonic(), "it waited for the imports"


def test_a_log_that_cannot_be_written(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        warm.start(["--version"], tmp_path / "file" / "log")


THREADS = """
import threading
import numpy, torch
from ftlab.studies.zygote import unsafe
print(unsafe())
stop = threading.Event()
thread = threading.Thread(target=stop.wait, name="of a plugin")
thread.start()
print(unsafe())
stop.set()
thread.join()
torch.set_num_threads(2)
torch.rand(10**6).exp()
print(unsafe())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_nothing_is_forked_beside_a_thread() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "3"}  # which do no harm
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    nothing, thread, pool = done.stdout.splitlines()
    assert nothing == ""
    assert "a trial cannot be forked because other threads run (of a plugin)" in thread
    assert "of a library)" in pool


@pytest.mark.slow
def test_whoever_dies_takes_the_trials_along_and_the_next_start_begins_anew(tmp_path: Path) -> None:
    warm = Warm()
    ends: list[Callable[[int], None]] = [lambda pid: os.kill(pid, signal.SIGKILL), lambda pid: warm.close()]
    for end in ends:
        child = warm.start(odd(tmp_path, "print(os.getpid(), os.getppid(), flush=True); time.sleep(600)"), tmp_path / "log")
        pid, parent = (int(word) for word in said(tmp_path / "log").split())
        end(parent)
        assert gone(pid)
        assert gone(parent)
        assert ended(child) == -signal.SIGKILL
        assert child.cpu_seconds() is None
        (tmp_path / "log").unlink()
    assert ended(warm.start(["--version"], tmp_path / "log")) == 0
    warm.close()
