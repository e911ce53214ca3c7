"""Signals, other runners, pruning and changed studies, with runs that are made up."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ftlab.errors import ConfigError, FtlabError
from ftlab.studies import job, runner
from ftlab.studies.engine import places, run_study
from ftlab.studies.storage import Lease
from tests.unit.studies.small_study import TUNED, Fits, Made, forget, opened, states, study, table

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_asks_the_trials_to_leave_and_the_study_goes_on_later(tmp_path: Path, number: int, code: int) -> None:
    running: list[Made] = []

    def interrupted() -> Made:
        if len(running) == 1:
            os.kill(os.getpid(), number)
        running.append(Made(None))
        return running[-1]

    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may ignore it
    try:
        with pytest.raises(FtlabError) as caught:
            run_study(study(tmp_path, retries=0), tmp_path, workers=2, start=Fits({"*": interrupted}))
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert (caught.value.exit_code, [(m.asked, m.killed) for m in running]) == (code, [(True, False)] * 2)
    assert set(states(tmp_path).values()) == {"waiting"}
    assert run_study(study(tmp_path, retries=0), tmp_path, start=(later := Fits())) == 0
    assert sorted(later.started) == ["r2/seed-0", "r2/seed-1", "r4/seed-0", "r4/seed-1"]


def test_what_another_runner_has_is_waited_for_and_taken_over_when_it_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = opened(study(tmp_path), tmp_path)
    assert other.claim() is not None
    told: list[str] = []

    def info(text: str, *values: object) -> None:
        told.append(text % values)
        if told[-1].startswith("waiting"):
            forget(other.store)

    monkeypatch.setattr(runner.log, "info", info)
    assert run_study(study(tmp_path), tmp_path, start=(fits := Fits())) == 0
    assert fits.started == ["r4/seed-0", "r2/seed-1", "r4/seed-1", "r2/seed-0"]
    assert told[3] == "waiting for other runners, who have 1 of the trials; what is not heard of for 60 s is taken over"


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    def hung_up() -> Made:
        os.kill(os.getpid(), signal.SIGHUP)
        return Made(2)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_study(study(tmp_path, seeds=1), tmp_path, start=Fits({"r2/seed-0": hung_up})) == 2
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_trial_that_another_has_taken_over_is_ended_and_not_listened_to(tmp_path: Path) -> None:
    slow = Made(None)
    other = opened(study(tmp_path, factors=None, seeds=[7]), tmp_path)

    def stolen() -> Made:
        forget(other.store)
        other.refresh()
        claim = other.claim()
        assert claim is not None
        assert other.finish(claim, "complete", {"code": 0}, 42.0)
        return slow

    assert (
        run_study(
            study(tmp_path, factors=None, seeds=[7]), tmp_path, lease=Lease(interval=1, grace=60), start=Fits({"base/seed-7": stolen})
        )
        == 0
    )
    assert slow.killed
    assert table(tmp_path)["base/seed-7"].value == 42.0


def test_the_pruner_ends_what_is_hopeless(tmp_path: Path) -> None:
    made: list[tuple[float, Made]] = []

    def trained() -> Made:
        number = len(made)
        run = tmp_path / "runs" / "base" / f"tune-{number}"
        if run.exists() or number > 2:
            return Fits()(["fit", "--run.root", str(tmp_path / "runs"), "--run.name", "base", "--run.id", "seed-0"], run, {})
        run.mkdir(parents=True)
        loss = [1.0, 0.5, 2.0][number]
        (run / "metrics.jsonl").write_text("".join(f'{{"step": {s}, "val_loss": {loss}}}\n' for s in (1, 2)))
        made.append((loss, Made(None if number == 2 else 0)))
        return made[-1][1]

    stop = {"median": {"n_startup_trials": 1}}
    assert run_study(study(tmp_path, factors=None, seeds=1, tune=TUNED, stop=stop), tmp_path, start=Fits({"*": trained})) == 0
    assert [(m.asked, m.killed) for _, m in made] == [(False, False), (False, False), (True, False)]
    assert {name: (r.state, r.value) for name, r in table(tmp_path).items() if r.phase == "tune"} == {
        "base/tune-0": ("complete", 1.0), "base/tune-1": ("complete", 0.5), "base/tune-2": ("pruned", 2.0),
    }  # fmt: skip


def test_a_folder_that_a_process_of_a_dead_runner_still_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlab.lock import locked

    run = tmp_path / "runs" / "base" / "seed-7"
    run.mkdir(parents=True)
    fits, held = Fits(), job._held
    looks: list[bool] = []

    def look(folder: Path) -> bool:
        if len(looks) == 2:
            stack.close()
        looks.append(held(folder))
        assert fits.started == []
        return looks[-1]

    monkeypatch.setattr(job, "_held", look)
    with ExitStack() as stack:
        stack.enter_context(locked(run))
        assert run_study(study(tmp_path, factors=None, seeds=[7]), tmp_path, start=fits) == 0
    assert (looks, fits.started) == ([True, True, False], ["base/seed-7"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "val_accuracy"}, "metric was 'val_loss' and is 'val_accuracy'"),
        ({"seeds": 3}, "add --extend"),
        ({"factors": {"model.tuning.r": [2, 4, 8]}}, "add --extend"),
        ({"factors": {"model.tuning.r": [2, 8]}}, "r4 is no longer there"),
    ],
)
def test_another_study_is_not_continued(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    run_study(study(tmp_path), tmp_path, start=Fits())
    kept = (tmp_path / "study.yaml").read_text()
    with pytest.raises(ConfigError, match=said):
        run_study(study(tmp_path, **changes), tmp_path, start=Fits())
    assert (tmp_path / "study.yaml").read_text() == kept


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_metric_that_nothing_was_judged_by_can_be_corrected(tmp_path: Path, direction: str) -> None:
    keys: dict[str, Any] = {"tune": TUNED, "stop": "asha", "retries": 0}
    with pytest.raises(FtlabError, match="never logged by the first run; it logged: train_loss, .*; correct it in the study"):
        run_study(study(tmp_path, metric="val_los", **keys), tmp_path, workers=2, start=Fits({"r4/tune-0": "no memory"}))
    tried = sorted(states(tmp_path).values())
    corrected = study(tmp_path, metric="val_loss", direction=direction, **keys)
    assert run_study(corrected, tmp_path, start=(fits := Fits())) == 0
    assert len(fits.started) == 10, "those that failed too"
    assert (tried.count("waiting"), set(states(tmp_path).values())) == (4, {"complete"})
    assert {s.direction.name.lower() for s in opened(corrected, tmp_path)._studies.values()} == {direction}
    assert table(tmp_path)["r2/tune-0"].cpu_seconds == 1.0, "the attempt before counts"


@pytest.mark.parametrize("outcome", ["complete", "pruned", "running"])
def test_a_metric_that_something_was_judged_by_stays(tmp_path: Path, outcome: Any) -> None:
    queue = opened(study(tmp_path), tmp_path)
    claim = queue.claim()
    assert claim is not None
    assert outcome == "running" or queue.finish(claim, outcome, {}, 1.0)
    wrong = (
        "metric was 'val_loss' and is 'val_f2', which may change only while no trial is complete, pruned or running; undo it, or choose a"
    )
    with pytest.raises(ConfigError, match=wrong):
        run_study(study(tmp_path, metric="val_f2"), tmp_path, start=Fits())
    if outcome == "running":
        forget(queue.store)
        assert run_study(study(tmp_path, metric="val_f2"), tmp_path, start=Fits(metric="val_f2")) == 0


def test_a_study_that_is_extended_runs_what_is_new(tmp_path: Path) -> None:
    run_study(study(tmp_path), tmp_path, start=Fits())
    wider = study(tmp_path, seeds=3, factors={"model.tuning.r": [2, 4, 8]})
    assert run_study(wider, tmp_path, extend=True, start=(fits := Fits())) == 0
    assert fits.started == ["r8/seed-0", "r8/seed-1", "r2/seed-2", "r4/seed-2", "r8/seed-2"]


def test_more_tuning_for_what_was_compared_is_refused(tmp_path: Path) -> None:
    run_study(study(tmp_path, tune=TUNED), tmp_path, start=Fits())
    with pytest.raises(ConfigError, match="tuned with 3 trials and has been compared"):
        run_study(study(tmp_path, tune={**TUNED, "trials": 4}), tmp_path, extend=True, start=Fits())


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    run_study(study(tmp_path), tmp_path, start=Fits())
    with pytest.raises(ConfigError, match=r"holds the study 's', not t"):
        run_study(study(tmp_path, name="t"), tmp_path, start=Fits())


def test_workers_share_devices_and_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert places(3) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "4"}]
    assert places(1) == [{}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places(2) == [{}, {}]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen: list[str] = []

    def noted() -> Made:
        seen.append(os.environ["OMP_NUM_THREADS"])
        return Made(2)

    run_study(study(tmp_path, seeds=1), tmp_path, workers=2, start=Fits({"*": noted}))
    assert (set(seen), "OMP_NUM_THREADS" in os.environ) == ({"3"}, False)
