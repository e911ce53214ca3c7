"""Studies of real fits, killed where it hurts: in the middle of a checkpoint, with the process that forks them, with their runner."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.faults import study_run
from tests.faults.study_run import Process, begin, table

pytestmark = pytest.mark.slow

STEPS = 6
BASE = {
    "model": {"backbone": {"name": "ftlab/tiny-bert"}, "task": {"class_path": "SequenceClassification"}, "tuning": {"class_path": "LoRA"}},
    "data": {
        "source": {
            "class_path": "Rows",
            "init_args": {
                "items": {
                    "train": [{"text": f"{word} number {n}", "label": n % 2} for n, word in enumerate(("a", "b", "c", "d", "e", "f"))],
                    "val": [{"text": "a good one", "label": 1}, {"text": "a bad one", "label": 0}],
                }
            },
        },
        "batch_size": 2,
    },
    "trainer": {"max_steps": STEPS, "max_epochs": None, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
    "save": {"every_n_steps": 1},
}
Table = dict[str, tuple[object, ...]]


def write(place: Path) -> None:
    place.mkdir(exist_ok=True)
    (place / "base.yaml").write_text(yaml.safe_dump(BASE))
    document = {"name": "s", "base": "base.yaml", "factors": {"model.tuning.r": [2, 4]}, "seeds": 1, "retries": 3}
    (place / "of-s.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The table of a study that was left alone."""
    place = tmp_path_factory.mktemp("whole")
    write(place)
    code, said = begin(place, real=True).end()
    assert code == 0, said
    found = table(place / "s")
    assert len(found) == 2
    return found


def trial(place: Path) -> int | None:
    """The process of the trial that runs now."""
    for path in (place / "s" / "runs").glob("*/*/.lock"):
        told = re.match(r"process (\d+) ", path.read_text())
        if told and not (path.parent / "summary.json").exists() and _lives(int(told[1])):
            return int(told[1])
    return None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until(condition: Callable[[], bool], process: Process) -> bool:
    """Wait, without a pause: what is waited for may be over in a millisecond."""
    begun = time.monotonic()
    while not condition():
        if process.ended() or time.monotonic() - begun > study_run.PATIENCE:
            return False
    return True


def checkpoints(place: Path) -> int:
    return len(list((place / "s" / "runs").glob("*/*/checkpoints/step*")))


def check(place: Path, whole: Table) -> None:
    found = table(place / "s")
    assert found == whole
    assert set(study_run.attempts(place / "s").values()) == {1}


def logs(place: Path) -> str:
    return "".join(path.read_text() for path in (place / "s" / "runs").glob("*/*.log"))


def test_a_trial_killed_in_the_middle_of_a_checkpoint_goes_on_from_the_one_before(tmp_path: Path, whole: Table) -> None:
    write(tmp_path)
    process, kills = begin(tmp_path, real=True), 0
    for least in (1, 3):
        if until(lambda least=least: checkpoints(tmp_path) >= least and _writing(tmp_path) and trial(tmp_path) is not None, process):  # type: ignore[misc]  # bound at once
            pid = trial(tmp_path)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                kills += 1
                until(lambda pid=pid: not _lives(pid), process)  # type: ignore[misc]
    code, said = process.end()
    assert code == 0, said
    assert kills >= 1
    assert "ended by signal 9" in said
    assert "continuing" in logs(tmp_path)
    check(tmp_path, whole)


def _writing(place: Path) -> bool:
    return any(True for _ in (place / "s" / "runs").glob("*/*/checkpoints/.*.tmp"))


def test_the_process_that_forks_trials_is_killed(tmp_path: Path, whole: Table) -> None:
    write(tmp_path)
    process = begin(tmp_path, real=True)
    assert until(lambda: checkpoints(tmp_path) >= 2 and trial(tmp_path) is not None, process)
    pid = trial(tmp_path)
    assert pid is not None
    os.kill(parent(pid), signal.SIGKILL)
    code, said = process.end()
    assert code == 0, said
    assert "lost" in said
    assert "continuing" in logs(tmp_path)
    check(tmp_path, whole)


def test_the_runner_is_killed_at_random_moments(tmp_path: Path, whole: Table) -> None:
    moments, kills = random.Random(1), 0
    write(tmp_path)
    for _ in range(4):
        process = begin(tmp_path, real=True)
        before = checkpoints(tmp_path)
        until(lambda before=before: checkpoints(tmp_path) > before, process)  # type: ignore[misc]  # bound at once
        time.sleep(moments.uniform(0, 1))
        pid = trial(tmp_path)
        if not process.ended():
            process.send(signal.SIGKILL)
            kills += 1
            begun = time.monotonic()
            while pid is not None and _lives(pid) and time.monotonic() - begun < 10:
                time.sleep(0.01)
            assert pid is None or not _lives(pid), "a trial outlived its runner"
        process.end()
    code, said = begin(tmp_path, real=True).end()
    assert code == 0, said
    assert kills >= 1
    check(tmp_path, whole)


def test_an_interrupted_study_saves_a_checkpoint_and_goes_on(tmp_path: Path, whole: Table) -> None:
    write(tmp_path)
    process = begin(tmp_path, real=True)
    assert until(lambda: checkpoints(tmp_path) >= 2 and trial(tmp_path) is not None, process)
    process.send(signal.SIGINT)
    code, said = process.end()
    assert code == 130, said
    assert "a checkpoint is saved" in logs(tmp_path)
    code, said = begin(tmp_path, real=True).end()
    assert code == 0, said
    check(tmp_path, whole)
