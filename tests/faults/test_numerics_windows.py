"""Windows in which a rank, or every rank, has nothing to score (N7)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import AdamW, Optimizer

from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
from ftlab.batch import IGNORE, Batch
from ftlab.commands.verify import equal
from ftlab.data.sources.in_memory import Rows
from ftlab.strategies.full import Full
from ftlab.tasks.causal_lm import CausalLM
from ftlab.window import Window
from tests.unit.training import model_folder, texts, trainer


class Blank(Callback):
    """Takes every label out of some batches, and keeps what each step leaves.

    Args:
        at: Number of a batch → the rank that loses its labels; None for all.
    """

    def __init__(self, at: dict[int, int | None]) -> None:
        self.at = at
        self.states: list[dict[str, Any]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.batches: list[Batch] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx in self.at and self.at[batch_idx] in (None, trainer.global_rank):
            batch.labels["lm"].fill_(IGNORE)
            batch.window["lm"] = batch.known["lm"] = 0
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        moments = [{k: v.clone() for k, v in s.items()} for s in trainer.optimizers[0].state.values()]
        weights = {n: p.detach().clone() for n, p in pl_module.named_parameters()}
        self.states.append({"weights": weights, "moments": moments})


def blanked(folder: Path, backbone: Path, blank: Blank, ranks: int = 1) -> FinetuneModule:
    module = FinetuneModule(
        Backbone(name=str(backbone)), CausalLM(cross_documents=False), Full(),
        optimizer=lambda groups: AdamW(groups, lr=1e-2, weight_decay=0.5), schedule=Schedule(decay="constant", warmup=0),
    )  # fmt: skip
    data = FinetuneData(Rows(items=[{"text": t} for t in texts(16)]), val_split=None, batch_size=2, seed=0)
    settings = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    trainer(folder, [blank], limit_train_batches=4, **settings).fit(module, datamodule=data)
    return module


def test_a_window_in_which_nothing_is_scored_changes_nothing(tmp_path: Path) -> None:
    """N7 on one rank: weights, decay and moments stay."""
    blank = Blank({1: None})
    blanked(tmp_path, model_folder(tmp_path), blank)
    first, second, third, _ = blank.states
    assert equal(first, second)
    assert not equal(second, third)


def test_a_step_without_scored_positions_would_decay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N7, control: where the step is taken, the weights move."""
    monkeypatch.setattr(Window, "scored", True)
    blank = Blank({1: None})
    blanked(tmp_path, model_folder(tmp_path), blank)
    assert not equal(blank.states[0], blank.states[1])


def in_two_processes(folder: Path, *off: str) -> list[dict[str, Any]]:
    """What each of two ranks comes to, where rank 0 has no label in its second batch, and none has any in the third."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, __file__, str(folder), str(model_folder(folder)), *off]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def took_the_others_step(ranks: list[dict[str, Any]], backbone: Path) -> None:
    """Both ranks have the gradient of the one that scored something; where none did, there is no step."""
    assert equal(ranks[0]["states"], ranks[1]["states"])
    assert all(torch.isfinite(w).all() for w in ranks[0]["states"][-1]["weights"].values())
    first, second, third, fourth = ranks[0]["states"]
    assert not equal(first, second)
    assert equal(second, third)
    assert not equal(third, fourth)
    expected = reference(backbone, first["weights"], ranks[1]["batch"])
    for name, gradient in ranks[0]["gradient"].items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("model.")], rtol=1e-5, atol=1e-6)


def test_a_rank_without_scored_positions_takes_the_others_step(tmp_path: Path) -> None:
    """N7."""
    took_the_others_step(in_two_processes(tmp_path), model_folder(tmp_path))


@pytest.mark.slow
def test_ranks_that_count_alone_go_apart(tmp_path: Path) -> None:
    """N7, control: a rank that divides by its own count, and so takes no step where it has none."""
    ranks = in_two_processes(tmp_path, "alone")
    with pytest.raises(AssertionError):
        took_the_others_step(ranks, model_folder(tmp_path))


def reference(backbone: Path, weights: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient that transformers' own mean loss has over the rank that scored something."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(backbone)
    model.load_state_dict({n.removeprefix("model."): w for n, w in weights.items()}, strict=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE)
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def main(folder: Path, backbone: Path, off: str = "") -> None:
    if off:
        FinetuneModule._sum_ranks = lambda self, value: value  # type: ignore[method-assign]
    blank = Blank({1: 0, 2: None})
    module = blanked(folder, backbone, blank, ranks=2)
    left = {"states": blank.states, "gradient": blank.gradients[1], "batch": blank.batches[1].inputs}
    torch.save(left, folder / f"{module.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
