"""fp16 whose gradients overflow, with torch's real loss scaling; on the CPU, so that no kernel of a GPU has part in it (N4)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.amp import GradScaler

from ftlab import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import NumericsError
from ftlab.numerics import Guard
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.training import texts, tiny_module, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # torch does not know of the scaler's first step


def fit(folder: Path, scale: float) -> Trainer:
    """Twelve steps in fp16 that begin with a loss scale; each overflow halves it."""
    scaler = GradScaler("cpu", init_scale=scale)
    made = trainer(folder, plugins=[MixedPrecision("16-mixed", "cpu", scaler)], max_epochs=2)
    module = tiny_module(folder, CausalLM(cross_documents=False))
    data = FinetuneData(Rows(items=[{"text": t} for t in texts(12)]), val_split=None, batch_size=2, seed=0)
    made.fit(module, datamodule=data)
    return made


def ends(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A scale that is too large for more steps than allowed ends the run, which has counted them."""
    with caplog.at_level(logging.WARNING, "ftlab"), pytest.raises(NumericsError, match="step 11 is .* after 10 that fp16's loss scaling"):
        fit(folder, 2.0**60)
    counted = [f"step {n} is left out by fp16's loss scaling, {n} of at most 10 in a row" for n in range(1, 11)]
    assert [record.getMessage() for record in caplog.records] == counted


def test_ten_overflows_in_a_row_are_counted_and_the_next_ends_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """N4."""
    ends(tmp_path, caplog)


def test_without_the_guard_a_run_of_overflows_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N4, control."""
    monkeypatch.setattr(Guard, "judge", lambda guard, norm, step: True)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        ends(tmp_path, caplog)


def test_a_scale_that_is_found_in_time_lets_the_run_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """N4: a few overflows are how a scale is found."""
    with caplog.at_level(logging.WARNING, "ftlab"):
        done = fit(tmp_path, 2.0**20)
    assert done.global_step == 12
    assert 0 < len(caplog.records) < 10
    assert all(torch.isfinite(p).all() for p in done.lightning_module.parameters())
