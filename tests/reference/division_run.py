"""Epochs of ftlab over a few ragged rows, keeping the gradients that the optimiser saw; also runs as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD, Optimizer

from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
from ftlab.data.sources.in_memory import Rows
from ftlab.ranks import leave_group
from ftlab.strategies.full import Full
from ftlab.tasks.causal_lm import CausalLM
from tests.reference.division import TEXTS, tiny_llama

Gradients = list[dict[str, torch.Tensor]]


class Keep(Callback):
    """Keeps what the optimiser sees at each step."""

    def __init__(self) -> None:
        self.seen: Gradients = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.seen.append({n.removeprefix("model."): p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})


def gradients(folder: Path, batch: int, accumulate: int, ranks: int = 1, clip: float | None = None) -> Gradients:
    """The gradient of every optimiser step of one epoch; the learning rate is too small to move anything."""
    keep = Keep()
    module = FinetuneModule(
        Backbone(name=tiny_llama()),
        CausalLM(cross_documents=False),
        Full(),
        optimizer=lambda groups: SGD(groups, lr=1e-12),
        schedule=Schedule(decay="constant", warmup=0),
    )
    data = FinetuneData(Rows(items=[{"text": t} for t in TEXTS]), val_split=None, batch_size=batch, seed=0)
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[keep],
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    if ranks > 1:
        torch.save(keep.seen, folder / f"{trainer.global_rank}.pt")
    return keep.seen


if __name__ == "__main__":
    gradients(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
    leave_group()
