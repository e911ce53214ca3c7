"""`ftlab report` on a study that the engine ran, with runs that are made up."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ftlab.commands import report
from ftlab.main import main
from ftlab.studies import runner
from ftlab.studies.engine import run_study
from ftlab.studies.reading import read_records
from tests.unit.studies.small_study import TUNED, Fits, opened, study

WRITTEN = ("results.csv", "results.md", "results.tex", "report.html", "results.parquet")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_POLL", 0.001)
    monkeypatch.setattr(runner, "_REFRESH", 0.01)


def test_a_study_gets_its_tables_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path, tune=TUNED, seeds=3, retries=0), folder, start=Fits({"r4/seed-1": "no space left on this planet"}))
    capsys.readouterr()
    assert main(["report", str(folder), "--figures", "svg"]) == 0
    out = capsys.readouterr().out
    assert all((folder / name).is_file() for name in WRITTEN)
    assert (folder / "figures" / "forest.svg").is_file()
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"complete", "failed"}
    assert "cannot be told from" in out
    assert "beware: r4: 1 of 3 seeds gave no finite score" in out
    page = (folder / "report.html").read_text()
    assert "no space left on this planet" in page
    assert 'data-refresh="0"' in page


def test_the_page_is_written_again_while_the_study_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = tmp_path / "s", study(tmp_path)
    folder.mkdir()
    opened(spec, folder)
    seen: list[str] = []
    written: list[int] = []

    def wait(_: float) -> None:
        seen.append((folder / "report.html").read_text())
        written.append((folder / "report.html").stat().st_mtime_ns)
        if len(seen) == 2:
            run_study(spec, folder, start=Fits())

    monkeypatch.setattr(report, "time", SimpleNamespace(sleep=wait))
    monkeypatch.setattr(report, "_EVERY", 7)
    assert main(["report", str(folder), "--watch"]) == 0
    assert 'data-refresh="7"' in seen[0]
    assert "No variant has a score yet." in seen[0]
    assert written[0] == written[1]  # nothing had changed, so nothing was written
    last = (folder / "report.html").read_text()
    assert 'data-refresh="0"' in last
    assert "has the lowest mean val_loss" in last
    capsys.readouterr()


def test_a_study_that_has_not_begun_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = tmp_path / "s", study(tmp_path)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            run_study(spec, folder, start=Fits())

    monkeypatch.setattr(report, "time", SimpleNamespace(sleep=wait))
    assert main(["report", str(folder), "--watch"]) == 0
    assert len(waits) == 3
    out = capsys.readouterr().out
    assert out.count(f"{folder} has no study.yaml yet: waiting for the study to begin") == 1
    assert "has the lowest mean val_loss" in out


def test_that_runs_share_hidden_states_is_said_beside_what_they_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "cache_features: the first run of a kind computes the hidden states for all"
    for name, cached in (("plain", False), ("cached", True)):
        run_study(study(tmp_path, cache_features=cached), tmp_path / name, start=Fits())
        assert main(["report", str(tmp_path / name)]) == 0
        assert (sentence in capsys.readouterr().out) is cached
        assert (tmp_path / name / "report.html").read_text().count(sentence) == 2 * cached


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "`ftlab report` needs the folder of a study; write `ftlab report studies/NAME`."),
        (["nowhere"], "nowhere has no study.yaml, so it is no study's folder"),
        (["here"], "here has no study.db; give --storage"),
        (["here", "--figures", "pgn"], "--figures names 'pgn'; did you mean png?"),
        (["sideways"], "direction in sideways/study.yaml is 'minimise'; did you mean minimize or maximize?"),
        (["here", "--truth", "right"], "--truth stands without --items"),
        (["numbered"], "name in numbered/study.yaml is 7; it must be a text"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"here": "name: s", "sideways": "name: s\ndirection: minimise", "numbered": "name: 7"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").write_text(text)
    assert main(["report", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "here" / "study.db").exists()


def test_variants_are_compared_over_the_items_whose_predictions_were_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path), folder, start=Fits())
    best = min(("r2", "r4"), key=lambda name: sum(r.value or 0.0 for r in read_records(None, "s", folder) if r.variant == name))
    rest = "r4" if best == "r2" else "r2"
    capsys.readouterr()
    assert main(["report", str(folder), "--items", "label", "--truth", "right"]) == 0
    out = capsys.readouterr().out
    assert "Over test items nothing is compared: 0 of 2 variants have predictions" in out
    assert "Let `ftlab predict` write them, and copy predictions.jsonl into the folder of each run" in out
    answers = {name: [[(2 * seed + row) % wrong != 0 for row in range(40)] for seed in (0, 1)] for name, wrong in ((best, 9), (rest, 2))}
    for name, seeds in answers.items():
        for seed, right in enumerate(seeds):
            lines = [json.dumps({"row": row, "label": "a" if good else "b", "right": "a"}) for row, good in enumerate(right)]
            (folder / "runs" / name / f"seed-{seed}" / "predictions.jsonl").write_text("\n".join(lines))
    assert main(["report", str(folder), "--items", "label", "--truth", "right"]) == 0
    out = capsys.readouterr().out
    difference = np.mean(answers[rest]) - np.mean(answers[best])
    assert f"Over 40 test items and 2 seeds, {rest} against {best}: worse (difference {difference:+.4g}; 95 % interval" in out
    assert "McNemar's p" in out
    assert f"{rest} against {best}: worse" in (folder / "report.html").read_text()
    assert main(["report", str(folder), "--items", "labels"]) == 3
    assert "has no column 'labels'; did you mean label?" in capsys.readouterr().err


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path), folder, start=Fits())
    heavy = ("torch", "lightning", "transformers", "matplotlib")
    code = f"import sys\nfrom ftlab.main import main\nprint(main(['report', {str(folder)!r}]), [n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""


def test_a_storage_without_the_study_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path), folder, start=Fits())
    (folder / "study.yaml").write_text("name: another")
    assert main(["report", str(folder)]) == 2
    assert "the storage has no study another" in capsys.readouterr().err
