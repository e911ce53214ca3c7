"""One optimiser step of ftlab on ragged rows; writes the gradient that the optimiser saw. Started by `test_division.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD, Optimizer

from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
from ftlab.data.sources.in_memory import Rows
from ftlab.strategies.full import Full
from ftlab.tasks.causal_lm import CausalLM
from tests.reference.division import TEXTS, tiny_llama


class Keep(Callback):
    """Keeps what the optimiser sees at each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.seen.append({n.removeprefix("model."): p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})


def main(out: Path, batch: int, accumulate: int, ranks: int) -> None:
    keep = Keep()
    module = FinetuneModule(
        Backbone(name=tiny_llama()), CausalLM(cross_documents=False), Full(),
        optimizer=lambda groups: SGD(groups, lr=1e-9), schedule=Schedule(decay="constant", warmup=0),
    )  # fmt: skip
    data = FinetuneData(Rows(items=[{"text": t} for t in TEXTS]), val_split=None, batch_size=batch, seed=0)
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=1, accumulate_grad_batches=accumulate,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[keep], default_root_dir=out.parent,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    torch.save(keep.seen, out.with_suffix(f".{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
