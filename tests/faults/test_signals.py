"""Signals: the step is finished, a checkpoint is saved, and the exit code says which signal it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import PATIENCE, Forker, Hook, forker
from tests.faults.small_run import BATCHES, EPOCHS, Place, Reference, differences, reference

STEP = "ftlab.module:FinetuneModule.training_step"
WRITE = "ftlab.checkpoint_io:_Hashing.write"


@pytest.fixture(scope="module")
def fork() -> Iterator[Forker]:
    with forker() as started:
        yield started


@pytest.fixture(scope="module")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference(fork, tmp_path_factory.mktemp("whole") / "run")


def continues(fork: Forker, place: Place, whole: Reference) -> None:
    """The resumed run is the one that was left alone, and no micro-batch was run twice."""
    code, said = fork.run(place.folder, ["fit", "--resume", str(place.run)], place.env)
    assert code == 0, said
    assert differences(place, whole) == []
    assert len(place.trace()) == EPOCHS * BATCHES


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_in_a_step_saves_after_it(fork: Forker, tmp_path: Path, whole: Reference, name: str) -> None:
    number = getattr(signal, name)
    place = Place(tmp_path / "run")
    code, said = fork.run(place.folder, place.first, place.env, [Hook(STEP, number, call=6)])
    assert code == 128 + number
    assert said.rstrip().endswith(f"stopped by {name} after step 4, a checkpoint is saved; continue with `ftlab fit --resume {place.run}`.")
    assert place.trace()[-1]["batch"] == 1  # the sixth and the seventh micro-batch are one window
    assert "Traceback" not in said
    continues(fork, place, whole)


def test_in_the_last_step(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    place = Place(tmp_path / "run")
    assert fork.run(place.folder, place.first, place.env, [Hook(STEP, signal.SIGTERM, call=EPOCHS * BATCHES)])[0] == 143
    continues(fork, place, whole)


def test_in_validation(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    place = Place(tmp_path / "run")
    hook = Hook("ftlab.module:FinetuneModule.validation_step", signal.SIGTERM, call=3)
    assert fork.run(place.folder, place.first, place.env, [hook])[0] == 143
    continues(fork, place, whole)


def test_two_interrupts_end_it_at_once(fork: Forker, tmp_path: Path, whole: Reference) -> None:
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
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, signal.SIGTERM, call=4), Hook(WRITE, signal.SIGTERM, call=30)]
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    assert code == 143
    assert "a checkpoint is saved" in said
    continues(fork, place, whole)


def test_the_third_signal_in_the_write_leaves_the_old_checkpoint(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    place = Place(tmp_path / "run")
    hooks = [Hook(STEP, signal.SIGTERM, call=6), Hook("torch:save", signal.SIGTERM, call=2), Hook("torch:save", signal.SIGTERM, call=2)]
    code, said = fork.run(place.folder, place.first, place.env, hooks)
    assert code == 143
    assert "a checkpoint is saved" not in said
    assert [p.name for p in (place.run / "checkpoints").glob("step-*.ckpt")] == ["step-00000002.ckpt"]
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert differences(place, whole) == []


def test_before_the_first_step_it_ends(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    place = Place(tmp_path / "run")
    hook = Hook("ftlab.data.datamodule:FinetuneData.prepare_data", signal.SIGTERM)
    assert fork.run(place.folder, place.first, place.env, [hook])[0] in (143, -signal.SIGTERM)
    code, said = fork.run(place.folder, place.again, place.env)
    assert code == 0, said
    assert differences(place, whole) == []


def test_a_stopped_process_goes_on(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    place = Place(tmp_path / "run")
    process = fork.start(place.folder, place.first, place.env, [Hook(STEP, signal.SIGSTOP, call=9)])
    stat = Path(f"/proc/{process.pid}/stat")
    assert process.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    assert len(place.trace()) == 8
    process.kill(signal.SIGCONT)
    assert process.wait() == 0, process.text
    assert differences(place, whole) == []


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


@pytest.mark.parametrize("ranks", ["1", pytest.param("0", marks=pytest.mark.slow), pytest.param("01", marks=pytest.mark.slow)])
def test_two_ranks_stop_together(tmp_path: Path, ranks: str) -> None:
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
