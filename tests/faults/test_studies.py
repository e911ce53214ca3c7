"""Studies whose runners and trials are killed: the finished table is that of a study that was left alone."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults import study_run
from tests.faults.study_run import STEPS, begin, journal_of, table
from tests.unit.studies.small_study import study

TUNE = {"trials": 2, "space": {"model.optimizer.lr": {"log_uniform": [1.0e-5, 1.0e-2]}}}
TRIALS = 8
"""Two variants, each tuned twice and compared over two seeds."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """The table of a study that was left alone."""
    place = tmp_path_factory.mktemp("whole")
    write(place)
    code, said = begin(place).end()
    assert code == 0, said
    assert all(events[0] == ("start", 0) and len(events) == 1 + STEPS for events in journal_of(place / "journal").values())
    found = table(place / "s")
    assert len(found) == TRIALS
    return found


def write(place: Path) -> None:
    study(place, tune=TUNE)


def finish(place: Path, whole: dict[str, tuple[object, ...]], kills: int) -> None:
    """Run to the end and compare; what was killed went on from its checkpoint, alone, and ended once."""
    code, said = begin(place).end()
    assert code == 0, said
    check(place, whole, kills)


def check(place: Path, whole: dict[str, tuple[object, ...]], kills: int) -> None:
    assert table(place / "s") == whole
    assert set(study_run.attempts(place / "s").values()) == {1}
    journal = journal_of(place / "journal")
    assert len(journal) == TRIALS
    for name, events in journal.items():
        reached = 0
        for what, step in events:
            # A step is in the journal before its checkpoint: a kill between the two has it done again.
            assert step in ((reached, reached - 1) if what == "start" else (reached + 1,)), (name, events)
            reached = step
        assert reached == STEPS
    repeated = sum(len([e for e in events if e[0] == "step"]) - STEPS for events in journal.values())
    assert 0 <= repeated <= kills


def kill_at(place: Path, moment: float) -> bool:
    """Kill a runner some seconds after its first trial began; False where it had finished by then."""
    lines = len(journal_text(place))
    process = begin(place)
    begun = time.monotonic()
    while not process.ended() and len(journal_text(place)) == lines and time.monotonic() - begun < study_run.PATIENCE:
        time.sleep(0.002)
    time.sleep(moment)
    finished = process.ended()
    if not finished:
        process.send(signal.SIGKILL)
    process.end()
    return not finished


def journal_text(place: Path) -> str:
    path = place / "journal"
    return path.read_text() if path.exists() else ""


def test_a_runner_that_is_killed_is_started_again_and_goes_on(tmp_path: Path, whole: dict[str, tuple[object, ...]]) -> None:
    write(tmp_path)
    kills = sum(kill_at(tmp_path, moment) for moment in (0.05, 0.3))
    assert kills == 2
    finish(tmp_path, whole, kills)


@pytest.mark.slow
def test_a_runner_that_is_killed_at_twenty_random_moments(tmp_path: Path, whole: dict[str, tuple[object, ...]]) -> None:
    moments, kills = random.Random(0), 0
    for number in range(20):
        place = tmp_path / str(number // 4)
        if not place.exists():
            write(place)
        kills += kill_at(place, moments.uniform(0, 0.4))
        if number % 4 == 3:
            finish(place, whole, 4)
    assert kills >= 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_goes_on(tmp_path: Path, whole: dict[str, tuple[object, ...]], number: int) -> None:
    write(tmp_path)
    process = begin(tmp_path)
    while "step" not in journal_text(tmp_path) and not process.ended():
        time.sleep(0.002)
    process.send(number)
    code, said = process.end()
    assert code == 128 + number, said
    assert f"stopped by {signal.Signals(number).name}; the same command goes on with the study." in said
    finish(tmp_path, whole, 0)


def test_four_runners_at_once_run_each_trial_once(tmp_path: Path, whole: dict[str, tuple[object, ...]]) -> None:
    write(tmp_path)
    runners = [begin(tmp_path) for _ in range(4)]
    for runner in runners:
        code, said = runner.end()
        assert (code, "locked" in said) == (0, False), said
    check(tmp_path, whole, 0)


def test_a_runner_that_sleeps_through_its_lease_is_not_listened_to(tmp_path: Path, whole: dict[str, tuple[object, ...]]) -> None:
    write(tmp_path)
    slow = begin(tmp_path)
    while "step" not in journal_text(tmp_path) and not slow.ended():
        time.sleep(0.002)
    slow.send(signal.SIGSTOP)
    first = begin(tmp_path).end()
    slow.send(signal.SIGCONT)
    for code, said in (first, slow.end()):
        assert code == 0, said
    check(tmp_path, whole, 0)


@pytest.mark.slow
def test_four_runners_and_a_thousand_claims(tmp_path: Path) -> None:
    study(tmp_path, seeds=125)
    runners = [begin(tmp_path) for _ in range(4)]
    for runner in runners:
        code, said = runner.end(600)
        assert (code, "locked" in said) == (0, False), said
    journal = journal_of(tmp_path / "journal")
    assert len(journal) == 250
    assert all(events == [("start", 0), *(("step", n + 1) for n in range(STEPS))] for events in journal.values())
    assert set(study_run.attempts(tmp_path / "s").values()) == {1}
