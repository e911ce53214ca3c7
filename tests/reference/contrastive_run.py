"""One optimiser step of ftlab over a few pairs, keeping the gradients that the optimiser saw; also runs as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.optim import SGD

from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
from ftlab.data.sources.in_memory import Rows, Value
from ftlab.strategies.full import Full
from ftlab.tasks.sentence_embedding import SentenceEmbedding
from tests.reference.contrastive import PAIRS, TEMPERATURE
from tests.reference.division_run import Gradients, Keep


def gradients(folder: Path, backbone: str, batch: int, accumulate: int, ranks: int = 1) -> Gradients:
    """The gradient of every optimiser step of one epoch; the learning rate is too small to move anything."""
    keep = Keep()
    module = FinetuneModule(
        Backbone(name=backbone),
        SentenceEmbedding(loss="contrastive", symmetric=True, temperature=TEMPERATURE),
        Full(),
        optimizer=lambda groups: SGD(groups, lr=1e-12),
        schedule=Schedule(decay="constant", warmup=0),
    )
    rows: list[dict[str, Value]] = [{"sentence1": first, "sentence2": second} for first, second in PAIRS]
    data = FinetuneData(Rows(items={"train": rows, "val": rows}), val_split="val", batch_size=batch, seed=0)
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=1, accumulate_grad_batches=accumulate,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, callbacks=[keep], default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    if ranks > 1:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save({"seen": keep.seen, "figures": figures}, folder / f"{trainer.global_rank}.pt")
    return keep.seen


if __name__ == "__main__":
    gradients(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
