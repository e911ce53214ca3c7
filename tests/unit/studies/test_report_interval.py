"""The interval that `ftlab report --interval` chooses, in the tables, the page and the figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ftlab.main import main
from ftlab.studies.engine import run_study
from ftlab.studies.intervals import Kind
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import findings
from ftlab.studies.report.page import page
from ftlab.studies.report.paper import markdown_table
from ftlab.studies.report.payload import payload
from tests.unit.studies.small_study import Fits, study
from tests.unit.studies.tables import grid

SCORES = {
    (a, b): np.random.default_rng(7 + n).normal(0.5, 0.1, 8).tolist()
    for n, (a, b) in enumerate([("x", "p"), ("x", "q"), ("y", "p"), ("y", "q")])
}


def digest(folder: Path, interval: Kind) -> Digest:
    return Digest("s", "val_loss", "minimize", folder, tuple(grid(SCORES)), interval=interval)


def expected(values: list[float], kind: Kind) -> tuple[float, float]:
    """By SciPy: Student's t, or percentiles at the level of Hesterberg (2015)."""
    if kind == "t":
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    else:
        tail = stats.norm.cdf(stats.t.ppf(0.025, 7) * math.sqrt(8 / 7))
        found = stats.bootstrap((values,), np.mean, confidence_level=1 - 2 * tail, method="percentile", rng=np.random.default_rng(1))
        low, high = found.confidence_interval
    return float(low), float(high)


@pytest.mark.parametrize(("kind", "words", "other"), [("t", "Student's t", "the bootstrap"), ("bootstrap", "the bootstrap", "Student's t")])
def test_the_chosen_interval_is_shown_everywhere(tmp_path: Path, kind: Kind, words: str, other: str) -> None:
    made = digest(tmp_path, kind)
    content = payload(made)
    for row in content["variants"]:
        ends = expected(SCORES[tuple(row["name"].split("-"))], kind)
        assert (row["low"], row["high"]) == pytest.approx(ends, abs=0.003)
    over_seeds = np.mean([SCORES["x", "p"], SCORES["x", "q"]], axis=0).tolist()
    level = content["effects"][0]["levels"][0]
    assert (level["low"], level["high"]) == pytest.approx(expected(over_seeds, kind), abs=0.003)
    cell = content["interactions"][0]["cells"][0]
    assert (cell["low"], cell["high"]) == pytest.approx(expected(SCORES["x", "p"], kind), abs=0.003)
    assert content["study"]["interval"] == f"95 % interval by {words}"
    assert f"95 % interval of the mean by {words}" in markdown_table(made)
    shown = page(made)
    assert f"95 % intervals of the mean by {words.replace(chr(39), '&#x27;')}" in shown
    assert f">95 % interval by {other.replace(chr(39), '&#x27;')}</button>" in shown
    best = next(row for row in content["variants"] if row["best"])
    assert f"[{best['low']:.3f}, {best['high']:.3f}]" in findings(made)[0]
    assert f"[{best['low']:.3f}, {best['high']:.3f}]" in markdown_table(made).replace("\\", "")


@pytest.mark.usefixtures("quick")
def test_fewer_seeds_than_the_chosen_interval_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path), folder, start=Fits())
    capsys.readouterr()
    assert main(["report", str(folder), "--interval", "bootstrap"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "ftlab: error: --interval is bootstrap, which needs at least 8 different seeds, and the study has 2; add seeds, or choose t, which "
        "needs 2.\n"
    )
    assert not (folder / "report.html").exists()
    assert main(["report", str(folder), "--interval", "t"]) == 0


@pytest.mark.usefixtures("quick")
def test_enough_seeds_for_the_bootstrap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path, seeds=8, factors=None), folder, start=Fits())
    assert main(["report", str(folder), "--interval", "bootstrap"]) == 0
    assert "95 % interval of the mean by the bootstrap" in (folder / "results.md").read_text()
    assert main(["report", str(folder), "--interval", "bayes"]) == 2
    assert "--interval: invalid choice: 'bayes'" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_one_seed_is_a_warning_unless_an_interval_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    run_study(study(tmp_path, seeds=[3]), folder, start=Fits())
    assert main(["report", str(folder)]) == 0
    assert "One seed: no interval" in capsys.readouterr().out
    assert main(["report", str(folder), "--interval", "t"]) == 2
    assert "--interval is t, which needs at least 2 different seeds, and the study has 1; add seeds." in capsys.readouterr().err
