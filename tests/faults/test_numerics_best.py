"""What may be called the best checkpoint, and losses that jump (N5, N6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlab.checkpoint_io import Manifest
from tests.faults.bad_run import FIT, place, write
from tests.faults.conftest import GOOD, Result, Run

TEXTS = GOOD["data"]["source"]["init_args"]["items"]
VALIDATED: dict[str, Any] = {
    "data": {
        "source": {"class_path": "Rows", "init_args": {"items": {"train": TEXTS, "val": [{"text": "Returns the number of rows."}]}}},
        "val_split": "val",
    },
    "trainer": {"max_steps": 4, "val_check_interval": 1, "log_every_n_steps": 1},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
}
"""A validation after every step."""
LONGER = {**VALIDATED, "trainer": {**VALIDATED["trainer"], "max_steps": 5}}


def figures(folder: Path, kind: str, name: str) -> dict[int, Any]:
    """Step → what was logged under a name."""
    lines = [json.loads(line) for line in (place(folder, kind).parent / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def spiked(result: Result, folder: Path, best: str) -> None:
    """The log names the step, and the checkpoint of it is not the best one."""
    assert result.code == 0, result.err
    train = figures(folder, "spike", "train_loss")
    usual = max(train[step] for step in (1, 2, 3))
    assert f"the loss of step 4 is {train[4] / usual:.0f} times the usual one" in result.err
    assert train[4] > 50 * usual
    assert result.err.count("times the usual one") == 1
    assert Manifest.read(place(folder, "spike")).best == best


def test_a_loss_a_hundred_times_the_usual_is_told_and_never_the_best(folder: Path, warm: Run) -> None:
    """N5."""
    write(folder, "spike", [4], **LONGER)
    spiked(warm(*FIT), folder, "step-00000003.ckpt")
    found = figures(folder, "spike", "val_loss")
    assert found[4] > found[3], "the spike left no harm, so that there was nothing to keep from the best"


def test_a_spike_may_end_the_run(folder: Path, warm: Run) -> None:
    """N5: the optional stop."""
    write(folder, "spike", [4], **{**LONGER, "stop_at_spike": True})
    result = warm(*FIT)
    assert result.code == 5, result.err
    assert "the loss of step 4 is " in result.err.splitlines()[-1]
    assert "(model.stop_at_spike)" in result.err.splitlines()[-1]
    assert Manifest.read(place(folder, "spike")).best == "step-00000003.ckpt"


@pytest.mark.parametrize(("off", "without"), [("", ["ftlab.spikes:Spikes.report"]), ("best", [])])
def test_without_the_watch_or_the_choice_of_the_best(folder: Path, warm: Run, off: str, without: list[str]) -> None:
    """N5, controls."""
    write(folder, "spike", [4], off=off, **LONGER)
    result = warm(*FIT, without=without)
    assert result.code == 0
    with pytest.raises(AssertionError):
        spiked(result, folder, "step-00000003.ckpt")


def chosen(result: Result, folder: Path) -> None:
    """Steps 1 and 4 have a loss that is NaN: the log says so, and the best is another."""
    assert result.code == 0, result.err
    for step in (1, 4):
        assert f"val_loss is nan at step {step}, so this checkpoint cannot be the best" in result.err
    manifest, found = Manifest.read(place(folder, "validation")), figures(folder, "validation", "val_loss")
    assert manifest.best == "step-00000003.ckpt"
    assert manifest.best_value == pytest.approx(found[3])


def test_a_validation_that_is_not_a_number_is_told_and_never_the_best(folder: Path, warm: Run) -> None:
    """N6: NaN where there is no best yet, and NaN after a good one."""
    write(folder, "validation", [1, 4], **VALIDATED)
    chosen(warm(*FIT), folder)
    found = figures(folder, "validation", "val_loss")
    assert [isinstance(found[step], float) for step in (1, 2, 3, 4)] == [False, True, True, False]


def test_without_the_choice_it_would_be(folder: Path, warm: Run) -> None:
    """N6, control."""
    write(folder, "validation", [1, 4], off="best", **VALIDATED)
    result = warm(*FIT)
    with pytest.raises(AssertionError):
        chosen(result, folder)
