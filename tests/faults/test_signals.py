"""P1-P4, P6, P7: the step is finished, a checkpoint is saved, and the exit code says which signal it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.processes import PATIENCE, Forker, Hook
from tests.faults.small_run import BATCHES, EPOCHS, Place, Reference, differences, reference

STEP = "ftlab.module:FinetuneModule.training_step"
WRITE = "ftlab.checkpoint_io:_Hashing.write"


@pytest.fixture(scope="module")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference(fork, tmp_path_factory.mktemp("whole") / "run")


def continues(fork: Forker, place: Place, whole: Reference) -> None:
    """The resumed run is the one that was left alone, and no micro-batch was run twice."""
    code, said = fork.run(place.folder, ["fit", "--resume", str(place.run)], place.env)
    assert code == 0, said
    assert differences(place, whole) == []
    assert len(place.trace()) == EPOCHS * BATCHES


def wrongly_stopped(place: Place, code: int, said: str, name: str) -> list[str]:
    """What is not as it must be after a signal in the sixth micro-batch, the first of the fourth step."""
    sentence = f"stopped by {name} after step 4, a checkpoint is saved; continue with `ftlab fit --resume {place.run}`."
    found = [] if code == 128 + getattr(signal, name) else [f"exit code {code}"]
    found += [] if said.rstrip().endswith(sentence) and "Traceback" not in said else [f"said {said[-500:]}"]
    found += [] if place.trace()[-1]["batch"] == 1 else ["the window was not finished"]  # the sixth and the seventh are one window
    saved = place.run / "checkpoints" / "step-00000004.ckpt"
    return found + ([] if saved.is_file() else ["no checkpoint of it"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_in_a_step_saves_after_it(fork: Forker, tmp_path: Path, whole: Reference, name: str) -> None:
    """P1, P4 (once), P6 (without nohup)."""
    place = Place(tmp_path / "run")
    code, said = fork.run(place.folder, place.first, place.env, [Hook(STEP, getattr(signal, name), call=6)])
    assert wrongly_stopped(place, code, said, name) == []
    continues(fork, place, whole)


def test_nohup_does_not_change_that(fork: Forker, tmp_path: Path) -> None:
    """P6 (with nohup): the process was started with SIGHUP ignored."""
    place = Place(tmp_path / "run")
    code, said = fork.run(place.folder, place.first, place.env, [Hook(STEP, signal.SIGHUP, call=6)], ignored=[signal.SIGHUP])
    assert wrongly_stopped(place, code, said, "SIGHUP") == []


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), pytest.param("SIGHUP", marks=pytest.mark.slow)]
)
def test_without_the_flag_nothing_is_saved(fork: Forker, tmp_path: Path, name: str) -> None:
    """P1, P4, P6, control: the flag is not installed."""
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, getattr(signal, name), call=6), Hook("ftlab.signals:SignalFlag.install", signal=0)]
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    found = wrongly_stopped(place, code, said, name)
    assert {"the window was not finished", "no checkpoint of it"} <= set(found)


def test_in_the_last_step(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P1."""
    place = Place(tmp_path / "run")
    assert fork.run(place.folder, place.first, place.env, [Hook(STEP, signal.SIGTERM, call=EPOCHS * BATCHES)])[0] == 143
    continues(fork, place, whole)


def test_in_validation(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P1."""
    place = Place(tmp_path / "run")
    hook = Hook("ftlab.module:FinetuneModule.validation_step", signal.SIGTERM, call=3)
    assert fork.run(place.folder, place.first, place.env, [hook])[0] == 143
    continues(fork, place, whole)


def test_two_interrupts_end_it_at_once(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P4 (again)."""
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, signal.SIGINT, call=8), Hook(STEP, signal.SIGINT, call=8)]  # one inside the other: both before the call
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    assert code == 130
    assert "a checkpoint is saved" not in said
    assert len(place.trace()) == 7
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert differences(place, whole) == []


def test_a_second_signal_in_the_write_does_not_harm_it(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P3 (twice, in the write), one process."""
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, signal.SIGTERM, call=4), Hook(WRITE, signal.SIGTERM, call=30)]
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    assert code == 143
    assert "a checkpoint is saved" in said
    continues(fork, place, whole)


def test_the_third_signal_in_the_write_leaves_the_old_checkpoint(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P3 (third within 5 s), one process."""
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, signal.SIGTERM, call=6), Hook("torch:save", signal.SIGTERM, call=2), Hook("torch:save", signal.SIGTERM, call=2)]
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    assert code == 143
    assert "a checkpoint is saved" not in said
    assert [p.name for p in (place.run / "checkpoints").glob("step-*.ckpt")] == ["step-00000002.ckpt"]
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert differences(place, whole) == []


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_a_stopped_process_goes_on(fork: Forker, tmp_path: Path, whole: Reference, seconds: int) -> None:
    """P7, and its control: one more line in the log would be seen."""
    place = Place(tmp_path / "run")
    process = fork.start(place.folder, place.first, place.env, [Hook(STEP, signal.SIGSTOP, call=9)])
    assert process.until(lambda: process.state() == "T")
    assert len(place.trace()) == 8
    time.sleep(seconds)
    process.kill(signal.SIGCONT)
    assert process.wait() == 0, process.text
    assert differences(place, whole) == []
    log = place.run / "metrics.jsonl"
    log.write_text(log.read_text() + log.read_text().splitlines()[-1] + "\n")
    assert differences(place, whole) == ["metrics differs"]


def processes_of(session: int) -> dict[int, str]:
    """pid → LOCAL_RANK, for the processes of a session that are alive."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                variables = (path / "environ").read_bytes().split(b"\0")
                ranks = [v.partition(b"=")[2].decode() for v in variables if v.startswith(b"LOCAL_RANK=")]
                found[int(path.name)] = ranks[0] if ranks else "0"
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["1", "0", "01"])
def test_two_ranks_stop_together(tmp_path: Path, ranks: str) -> None:
    """P2, P3: ranks that Lightning has started, signalled from outside; see test_signals_ranks.py for where."""
    place = Place(tmp_path / "run", ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"])
    environment = {**os.environ, **place.env}
    words = [sys.executable, "-m", "ftlab", *place.first, "--trainer.max_epochs", "100000"]
    with (place.folder / "out.txt").open("w") as out, subprocess.Popen(
        words, cwd=place.folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:  # fmt: skip
        begun = time.monotonic()
        while len(place.trace()) < 4 and process.poll() is None:
            assert time.monotonic() - begun < PATIENCE, (place.folder / "out.txt").read_text()[-2000:]
        for pid, rank in processes_of(process.pid).items():
            if rank in ranks:
                os.kill(pid, signal.SIGTERM)
        code = process.wait(timeout=PATIENCE)
    said = (place.folder / "out.txt").read_text()
    assert code == 143, said[-2000:]
    while processes_of(process.pid):  # the other rank ends by itself; nobody signals it again
        assert time.monotonic() - begun < PATIENCE, processes_of(process.pid)
    assert said.count("stopped by SIGTERM") == 1
    step = max(record["step"] for record in place.trace())
    assert (place.run / "checkpoints" / f"step-{step:08d}.ckpt").is_file()
