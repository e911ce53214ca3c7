"""`run_study` from its file to its table, with runs that are made up."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from ftlab.errors import FtlabError
from ftlab.studies.engine import run_study
from tests.unit.studies.small_study import TUNED, Fits, Made, figure, states, study, table

pytestmark = pytest.mark.usefixtures("quick")


def test_a_study_leaves_its_file_its_table_and_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits, folder = Fits(), tmp_path / "studies" / "s"
    spec = study(tmp_path, tune=TUNED)
    assert run_study(spec, folder, workers=2, start=fits) == 0
    assert capsys.readouterr().out == f"study s: 10 complete; {folder / 'results.csv'}\n"
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        "base.yaml",
        "results.csv",
        "runs",
        "study.db",
        "study.yaml",
    ]
    assert yaml.safe_load((folder / "study.yaml").read_text()) == {**spec.document, "base": "base.yaml"}
    with (folder / "results.csv").open(newline="") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    words = {f"runs/{w['run.name']}/{w['run.id']}": w for w in fits.words}
    assert rows.keys() == words.keys()
    for name, row in rows.items():
        assert float(row["value"]) == figure(words[name])
        assert (row["cpu_seconds"], row["trainable_params"], row["tokens"], row["peak_memory"]) == ("0.5", "7", "21", "1024")
        assert float(row["metrics.val_accuracy"]) == 0.5
    best = min((r for r in table(folder).values() if r.phase == "tune" and r.variant == "r2"), key=lambda r: r.value or 0.0)
    assert words["runs/r2/seed-1"]["model.optimizer.lr"] == best.settings["model.optimizer.lr"]
    assert (words["runs/r2/seed-1"]["model.tuning.r"], words["runs/r2/seed-1"]["seed_everything"]) == (2, 1)
    again = Fits()
    assert run_study(spec, folder, start=again) == 0
    assert again.started == []


def test_trials_share_hidden_states_where_the_study_says_so(tmp_path: Path) -> None:
    for name, wanted in (("shared", True), ("apart", False)):
        assert run_study(study(tmp_path / name, cache_features=wanted), tmp_path / name, start=(fits := Fits())) == 0
        told = {"FTLAB_FEATURES": str(tmp_path / name / "features")} if wanted else {}
        assert [e.items() >= told.items() and ("FTLAB_FEATURES" in e) is wanted for e in fits.environments] == [True] * 4


def test_one_trial_that_fails_leaves_the_others_and_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits = Fits({"r2/seed-1": "the GPU fell off, with key sk-abcdefghijklmnopqrst"})
    assert run_study(study(tmp_path), tmp_path, start=fits) == 6
    assert fits.started.count("r2/seed-1") == 2
    record = table(tmp_path)["r2/seed-1"]
    assert (record.state, record.error, record.settings) == ("failed", "the GPU fell off, with key <removed>", {"model.tuning.r": 2})
    assert "r2 seed-1: failed, the GPU fell off" in capsys.readouterr().err
    assert run_study(study(tmp_path), tmp_path, start=(mended := Fits())) == 0
    assert mended.started == ["r2/seed-1"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-11, "ended by signal 11: it said nothing of it"),
        (137, "it ended with exit code 137 and said nothing"),
        (77, "it ended with exit code 77 and said nothing"),
        (5, "it ended with exit code 5 and said nothing"),
    ],
)
def test_a_trial_that_dies_is_not_the_runner(tmp_path: Path, code: int, said: str) -> None:
    def dead() -> Made:
        (tmp_path / "runs" / "r4" / "seed-0.log").write_text("starting\x1b[2J\n")
        return Made(code)

    spec = study(tmp_path, retries=0)
    assert run_study(spec, tmp_path, start=Fits({"r4/seed-0": dead})) == (5 if code == 5 else 6)
    assert table(tmp_path)["r4/seed-0"].error == said
    assert list(states(tmp_path).values()).count("complete") == 3


@pytest.mark.parametrize(("code", "tries"), [(77, 3), (9, 3), (127, 3), (-9, 3), (5, 1)])
def test_a_code_that_is_none_of_ftlab_is_a_crash(tmp_path: Path, code: int, tries: int) -> None:
    fits = Fits({"r4/seed-1": lambda: Made(code)})
    assert run_study(study(tmp_path, retries=2), tmp_path, start=fits) == (6 if tries > 1 else code)
    assert fits.started.count("r4/seed-1") == tries


def test_a_trial_that_hangs_is_ended_and_the_next_starts(tmp_path: Path) -> None:
    hanging: list[Made] = []

    def hang() -> Made:
        hanging.append(Made(None))
        return hanging[-1]

    fits = Fits({"r2/seed-0": hang})
    assert run_study(study(tmp_path, timeout_minutes=0.001), tmp_path, start=fits) == 6
    assert (len(hanging), hanging[0].killed) == (1, True)
    record = table(tmp_path)["r2/seed-0"]
    assert (record.state, record.error) == ("timeout", "it took longer than 0.001 minutes")
    assert fits.started[-1] == "r4/seed-1"


def test_a_metric_that_is_never_logged_is_said_after_the_first_trial(tmp_path: Path) -> None:
    fits = Fits()
    with pytest.raises(
        FtlabError, match=r"^metric val_f2 was never logged by the first run; it logged: train_loss, val_accuracy, val_loss\b"
    ) as caught:
        run_study(study(tmp_path, metric="val_f2"), tmp_path, start=fits)
    assert (caught.value.exit_code, len(fits.started)) == (2, 1)
    assert sorted(states(tmp_path).values()) == ["invalid", "waiting", "waiting", "waiting"]


def test_one_run_without_the_metric_among_others_is_invalid(tmp_path: Path) -> None:
    def silent() -> Made:
        (tmp_path / "runs" / "r4" / "seed-1").mkdir(parents=True)
        return Made(0)

    assert run_study(study(tmp_path), tmp_path, start=Fits({"r4/seed-1": silent})) == 2
    assert table(tmp_path)["r4/seed-1"].error == "it never logged val_loss"
    assert list(states(tmp_path).values()).count("complete") == 3


def test_a_metric_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    def diverged() -> Made:
        run = tmp_path / "runs" / "r2" / "seed-0"
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text('{"step": 1, "val_loss": 1.0}\n{"step": 2, "val_loss": null}\n')
        return Made(0)

    assert run_study(study(tmp_path), tmp_path, start=Fits({"r2/seed-0": diverged})) == 5
    assert (table(tmp_path)["r2/seed-0"].state, table(tmp_path)["r2/seed-0"].value) == ("failed", None)


def test_a_full_disk_stops_the_study_before_the_next_trial(tmp_path: Path) -> None:
    fits = Fits({"r4/seed-0": lambda: Made(8)})
    with pytest.raises(FtlabError, match="the study stops before the next trial meets the same") as caught:
        run_study(study(tmp_path), tmp_path, start=fits)
    assert (caught.value.exit_code, fits.started) == (8, ["r2/seed-0", "r4/seed-0"])
    assert run_study(study(tmp_path, retries=0), tmp_path, extend=True, start=(mended := Fits())) == 0
    assert sorted(mended.started) == ["r2/seed-1", "r4/seed-0", "r4/seed-1"]


def test_three_failures_of_one_cause_and_nothing_else_stop_the_study(tmp_path: Path) -> None:
    fits = Fits({"*": "no such model"})
    with pytest.raises(FtlabError, match="^the first 3 trials failed alike: no such model"):
        run_study(study(tmp_path, retries=0, seeds=5), tmp_path, start=fits)
    assert len(fits.started) == 3
