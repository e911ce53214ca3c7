"""Lines per trial and the tables of a paper; text that comes from runs stays text."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.escaping import csv_cell, latex, markdown, printable
from ftlab.studies.report.findings import findings, warnings
from ftlab.studies.report.paper import latex_table, markdown_table
from ftlab.studies.report.tables import csv_text, write_parquet
from tests.unit.studies import synthetic


def digest(records: list[TrialRecord], folder: Path, direction: str = "minimize") -> Digest:
    return Digest("trial_of_names", "val_loss", "minimize" if direction == "minimize" else "maximize", folder, tuple(records))


def test_csv_and_parquet_have_a_line_per_trial(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, seeds=2, tuning=1, steps=2)
    rows = list(csv.DictReader(io.StringIO(csv_text(records))))
    assert [float(r["value"]) for r in rows] == [r.value for r in records]
    assert [r["levels.size"] for r in rows] == [r.levels["size"] for r in records]
    write_parquet(records, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["value"].to_pylist() == [r.value for r in records]
    assert table["seed"].to_pylist() == [r.seed for r in records]
    assert table["tuned.model.optimizer.lr"].to_pylist() == [r.tuned["model.optimizer.lr"] for r in records]
    assert {str(table.schema.field(name).type) for name in ("cpu_seconds", "metrics.val_loss")} == {"double"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_settings_of_several_types_are_json_in_parquet(tmp_path: Path) -> None:
    first, second, third = synthetic.records(tmp_path, {"model.tuning": ("LoRA",)}, seeds=3, tuning=0, steps=1)
    records = [replace(first, settings={"k": [1, "a"]}), replace(second, settings={"k": 2}), replace(third, settings={"k": 1 << 70})]
    write_parquet(records, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet")["settings.k"].to_pylist() == ['[1, "a"]', "2", str(1 << 70)]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\t=1", " =1", "＝1", "\r=1"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert str(csv_cell(text)).startswith("'")


def test_numbers_stay_numbers() -> None:
    assert csv_cell(-1.5) == -1.5
    assert csv_cell("LoRA-r4") == "LoRA-r4"


def test_what_would_steer_a_terminal_is_spelled_out() -> None:
    assert printable("a\x1b[31mb\u202ec\nd\ud800") == "a\\x1b[31mb\\u202ec d\\ud800"


def test_markdown_and_latex_show_what_was_written() -> None:
    assert markdown("a|b_<img src=x>`[x](y)") == r"a\|b\_&lt;img src=x&gt;\`\[x\](y)"
    assert latex("50% & #1 $x_i$ \\input{/etc/passwd} ~^") == (
        r"50\% \& \#1 \$x\_i\$ \textbackslash{}input\{/etc/passwd\} \textasciitilde{}\textasciicircum{}"
    )


def test_the_paper_table_is_what_scipy_and_statsmodels_say(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, seeds=5, tuning=3, steps=1)
    made = digest(records, tmp_path)
    scores: dict[str, list[float]] = {}
    for r in records:
        if r.phase == "seeds" and r.value is not None:
            scores.setdefault(r.variant, []).append(r.value)
    names = list(scores)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    p_values = multipletests([stats.ttest_rel(scores[a], scores[b]).pvalue for a, b in pairs], method="holm")[1]
    best = min(names, key=lambda n: sum(scores[n]))
    expected = {next(n for n in pair if n != best): p for pair, p in zip(pairs, p_values, strict=True) if best in pair}
    rows = {cells[1].strip(): cells for line in markdown_table(made).splitlines() if len(cells := line.split("|")) > 10}
    for name, p in expected.items():
        said = rows[name][9]
        assert ("not significant" in said) == (p > 0.05)
        assert (f"p = {p:.3f}" in said) if p >= 0.001 else ("p &lt; 0.001" in said)
        mean, deviation = re.findall(r"\d\.\d+", rows[name][2])
        assert float(mean) == pytest.approx(sum(scores[name]) / 5, abs=10.0 ** -len(mean.split(".")[1]))
        assert float(deviation) == pytest.approx(stats.tstd(scores[name]), abs=10.0 ** -len(mean.split(".")[1]))
        low, high = (float(n) for n in re.findall(r"\d\.\d+", rows[name][3]))
        ends = stats.t.interval(0.95, 4, loc=sum(scores[name]) / 5, scale=stats.sem(scores[name]))
        assert (low, high) == pytest.approx(ends, abs=10.0 ** -len(mean.split(".")[1]))
        assert [rows[name][column].strip() for column in (4, 5)] == ["5", "3"]
    assert rows[best][9].strip() == "best"
    assert latex_table(made).count(r"\\") == len(names) + 1


def test_one_seed_has_a_warning_and_no_interval(tmp_path: Path) -> None:
    made = digest(synthetic.records(tmp_path, seeds=1, tuning=0, steps=1), tmp_path)
    assert "(no interval, 1 seed, no tuning" in findings(made)[0]
    assert any("One seed: no interval" in text for text in warnings(made))
    assert "±" not in markdown_table(made).split("\n\n")[1]


def test_more_can_be_better(tmp_path: Path) -> None:
    records = [replace(r, value=r.metrics["val_accuracy"]) for r in synthetic.records(tmp_path, seeds=3, tuning=2, steps=1)]
    made = digest(records, tmp_path, "maximize")
    assert "highest mean" in findings(made)[0]
    means = [s.mean for s in made.ranked if s.mean is not None]
    assert means == sorted(means, reverse=True)
    assert all(t.best[-1] == max(v for v in t.values if v is not None) for t in made.tuning.values())


def test_runs_that_lie_on_another_machine_are_told(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, seeds=2, tuning=0, steps=1)
    assert not any("run folders" in text for text in warnings(digest(records, tmp_path)))
    shutil.rmtree(tmp_path / records[0].folder)
    assert warnings(digest(records, tmp_path))[-1].startswith("1 run folders are not here")


def test_a_study_of_failures_is_told_as_one(tmp_path: Path) -> None:
    records = [replace(r, state="failed", value=None, error="why") for r in synthetic.records(tmp_path, seeds=2, tuning=0, steps=1)]
    made = digest(records, tmp_path)
    assert findings(made) == ["No variant has a score: no trial ended well."]
    assert "12 of 12 trials did not end well" in warnings(made)[-1]
    assert latex_table(made)
