"""A strategy's hooks are called when the contract says, with what it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from ftlab import Backbone, Batch, FinetuneData, FinetuneModule, TuningStrategy
from ftlab.data.sources.in_memory import Rows
from ftlab.tasks.causal_lm import CausalLM

CALLS: list[tuple[object, ...]] = []
KEPT: list[bool] = []
"""For each forward pass, whether gradients were there."""


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()
    KEPT.clear()


@dataclass(frozen=True, kw_only=True)
class Noting(TuningStrategy):
    """Trains the final norm and notes its calls."""

    penalty: float = 0.0

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        CALLS.append(("apply", model.training))
        model.requires_grad_(False)
        model.get_submodule("model.norm").requires_grad_(True)
        return model

    def prepare(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        CALLS.append(("prepare", sum(len(batch.rows) for batch in batches)))

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        KEPT.append(model.get_parameter("model.norm.weight").grad is not None)
        return {"penalty": self.penalty * model.get_parameter("model.norm.weight").sum()} if self.penalty else {}

    def on_gradients(self, model: nn.Module, step: int) -> None:
        gradient = model.get_parameter("model.norm.weight").grad
        assert gradient is not None
        CALLS.append(("on_gradients", step, gradient.clone()))

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        assert model.get_parameter("model.norm.weight").grad is not None
        CALLS.append(("on_step", step, total))

    def metrics(self, model: nn.Module) -> dict[str, float]:
        return {"norm": 1.5}


def fit(folder: Path, tuning: TuningStrategy, accumulate: int = 2, ckpt_path: str | None = None) -> Trainer:
    texts = ["one short row", "another row that is rather longer than the first one", "three", "the fourth of them", "five"]
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), CausalLM(cross_documents=False), tuning)
    data = FinetuneData(Rows(items={"train": [{"text": t} for t in texts], "val": [{"text": texts[0]}]}), batch_size=1, seed=0)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=accumulate, logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder, log_every_n_steps=1,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / "kept.ckpt")
    return trainer


def named(name: str) -> list[tuple[object, ...]]:
    return [call[1:] for call in CALLS if call[0] == name]


def tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def test_order_and_numbers(tmp_path: Path) -> None:
    trainer = fit(tmp_path, Noting())
    assert named("apply") == [(True,), (True,)]  # on the shapes alone, then on the weights
    assert named("prepare") == [(5,)]
    assert [call[0] for call in CALLS[:4]] == ["apply", "apply", "prepare", "on_gradients"]
    assert [step for step, _ in named("on_gradients")] == [0, 1, 2, 3, 4, 5]
    assert named("on_step") == [(step, 6) for step in range(1, 7)]
    assert float(trainer.callback_metrics["tuning/norm"]) == 1.5


def test_prepare_is_left_out_when_a_run_goes_on(tmp_path: Path) -> None:
    fit(tmp_path, Noting())
    CALLS.clear()
    fit(tmp_path, Noting(), ckpt_path=str(tmp_path / "kept.ckpt"))
    assert named("prepare") == []


def test_a_penalty_counts_once_per_step_whatever_the_window(tmp_path: Path) -> None:
    """Its gradient is 0.25 for every weight, also in the short last window of an epoch."""
    fit(tmp_path, Noting())
    plain = [g for _, g in named("on_gradients")]
    CALLS.clear()
    trainer = fit(tmp_path, Noting(penalty=0.25))
    first, short = (tensor(named("on_gradients")[i][1]) - tensor(plain[i]) for i in (0, 2))
    assert torch.allclose(first, torch.full_like(first, 0.25), atol=1e-5)
    assert torch.allclose(short, torch.full_like(short, 0.25), atol=5e-3)  # the weights have moved a little since
    assert "train_penalty" in trainer.callback_metrics


def test_gradients_go_before_the_next_window_takes_its_room(tmp_path: Path) -> None:
    fit(tmp_path, Noting(), accumulate=2)
    assert KEPT == 2 * [False, True, False, True, False]
