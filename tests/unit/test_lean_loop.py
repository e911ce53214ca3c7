"""The lean loop does what Lightning's own does: the same hooks in the same order, counters, logged figures and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from ftlab import FinetuneData
from ftlab.batch import Batch
from ftlab.data.sources.in_memory import Rows
from ftlab.lean_loop import LeanEpochLoop, go_lean
from ftlab.tasks.causal_lm import CausalLM
from tests.faults.forking import Run
from tests.faults.small_run import CONFIG
from tests.unit.training import texts, tiny_module, trainer

STEP = ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


class Witness(Callback):
    """Notes every hook of a step and what Lightning says of itself in it, and logs as users' callbacks do."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        for name in STEP:
            setattr(self, name, lambda trainer, module, *_, hook=name: self.note(trainer, module, hook))

    def note(self, trainer: Trainer, module: LightningModule, hook: str) -> None:
        cleared = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.zero_grad.total
        self.seen.append((hook, module._current_fx_name, trainer.global_step, str(cleared)))
        if hook == "on_train_batch_start":
            module.log("begun", float(trainer.global_step), on_step=True, on_epoch=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.seen.append(("end", float(outputs["loss"]).hex(), batch_idx, batch.rows.tolist(), trainer.is_last_batch))
        pl_module.log("rows", float(len(batch.rows)), on_step=True, on_epoch=True, batch_size=len(batch.rows))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(("validated", trainer.global_step, {k: float(v) for k, v in trainer.callback_metrics.items()}))


def fitted(folder: Path, lean: bool, ckpt_path: Path | None = None, epochs: int = 2) -> tuple[Trainer, Witness]:
    witness = Witness()
    fitting = trainer(
        folder, [witness], max_epochs=epochs, accumulate_grad_batches=2, gradient_clip_val=1.0, val_check_interval=3,
        logger=CSVLogger(folder), log_every_n_steps=1,
    )  # fmt: skip
    if lean:
        go_lean(fitting)
    data = FinetuneData(Rows(items={"train": [{"text": t} for t in texts(13)], "val": [{"text": texts(1)[0]}]}), batch_size=2, seed=0)
    torch.manual_seed(0)
    fitting.fit(tiny_module(folder, CausalLM(cross_documents=False)), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return fitting, witness


def same(one: Trainer, other: Trainer) -> bool:
    a, b = (t.lightning_module.state_dict() for t in (one, other))
    assert one.fit_loop.state_dict() == other.fit_loop.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(fitting: Trainer) -> str:
    return (Path(str(fitting.log_dir)) / "metrics.csv").read_text(encoding="utf-8")


def test_a_fit_is_that_of_lightnings_own_loop(tmp_path: Path) -> None:
    own, expected = fitted(tmp_path / "own", lean=False)
    lean, found = fitted(tmp_path / "lean", lean=True)
    assert isinstance(lean.fit_loop.epoch_loop, LeanEpochLoop)
    assert found.seen == expected.seen
    assert len([call for call in found.seen if call[0] == "end"]) == 14
    assert same(lean, own)
    assert lines(lean) == lines(own)
    assert "begun" in lines(lean)
    assert "rows_epoch" in lines(lean)


def test_a_continued_fit_is_that_of_lightnings_own_loop(tmp_path: Path) -> None:
    first, _ = fitted(tmp_path / "first", lean=True, epochs=1)
    first.save_checkpoint(tmp_path / "kept.ckpt")
    own, expected = fitted(tmp_path / "first", lean=False, ckpt_path=tmp_path / "kept.ckpt")
    lean, found = fitted(tmp_path / "first", lean=True, ckpt_path=tmp_path / "kept.ckpt")
    assert found.seen == expected.seen
    assert same(lean, own)


@pytest.fixture
def warm(_warm: Run) -> Run:
    return _warm


@pytest.mark.parametrize(("words", "steps"), [((), 0), (("--trainer.profiler", "simple"), 1)])
def test_the_command_line_uses_it_unless_a_profiler_would_see_less(tmp_path: Path, warm: Run, words: tuple[str, ...], steps: int) -> None:
    """Without the loop's step nothing is trained."""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    arguments = ("fit", "--config", "c.yaml", "--trainer.max_steps", "1", "--save.verify_merge", "false", *words)
    assert warm(tmp_path, *arguments, without=["ftlab.lean_loop:LeanEpochLoop._step"]).code == 0
    (summary,) = tmp_path.glob("runs/c/*/summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["steps"] == steps
