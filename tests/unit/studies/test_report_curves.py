"""Learning curves from run folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftlab.studies.report.curves import band, curves, read
from tests.unit.studies import synthetic


def test_a_cut_line_and_what_is_no_number_are_left_out(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "loss": 2.0}',
        '{"step": 2, "loss": null}',
        '{"step": 3, "loss": "NaN"}',
        '{"step": 4, "loss": NaN}',
        "[1]",
        '{"loss": 1.0}',
    ]
    (tmp_path / "m").write_text("\n".join([*lines, '{"step": 5, "loss": 1.0, "epoch": 3}', '{"step": 6, "lo']))
    found = read(tmp_path / "m")
    assert found.keys() == {"loss"}
    assert [list(a) for a in found["loss"]] == [[1.0, 5.0], [2.0, 1.0]]


def test_a_step_that_was_run_twice_counts_as_it_was_last(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in ((1, 9.0), (2, 8.0), (1, 7.0))))
    assert list(read(tmp_path / "m")["loss"][1]) == [7.0, 8.0]


def test_the_band_is_mean_smallest_and_largest_where_all_seeds_are() -> None:
    one, two = np.array([0.0, 10.0, 20.0]), np.array([5.0, 10.0])
    found = band([(one, np.array([0.0, 10.0, 20.0])), (two, np.array([1.0, 2.0]))])
    assert found.steps == (5.0, 10.0)
    assert (found.mean, found.low, found.high, found.seeds) == ((3.0, 6.0), (1.0, 2.0), (5.0, 10.0), 2)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    steps = np.arange(10_000.0)
    found = band([(steps, np.sin(steps))])
    assert len(found.steps) <= 120
    assert (found.steps[0], found.steps[-1]) == (0.0, 9999.0)
    assert found.mean[-1] == pytest.approx(np.sin(9999.0))


def test_curves_are_of_the_compared_seeds_and_the_studys_metric_is_first(tmp_path: Path) -> None:
    records = synthetic.records(tmp_path, {"model.tuning": ("LoRA", "Full")}, seeds=3, tuning=2, steps=20)
    half = [replace(r, state="running") if r.variant == "Full" or r.seed == 0 else r for r in records]
    found = curves(half, tmp_path, "val_accuracy")
    assert list(found)[:3] == ["val_accuracy", "val_loss", "train_loss"]
    assert found["val_loss"]["LoRA"].seeds == 2  # the complete ones alone
    assert found["val_loss"]["Full"].seeds == 3  # none is complete yet
    assert found["val_loss"]["LoRA"].steps == tuple(float(s) for s in range(2, 21, 2))
