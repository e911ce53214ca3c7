"""A record of every micro-batch to the last bit, for comparing two runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ftlab.batch import Batch
from ftlab.lean import RunCallback

VARIABLE = "FTLAB_TRACE"
"""Environment variable with the folder that traces are written to."""


class Trace(RunCallback):
    """Appends one line per micro-batch: step, epoch, rows, learning rate and loss, floats as hexadecimal.

    Args:
        folder: Where; one file per rank.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        record = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "rows": batch.rows.tolist(),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]).hex(),
            "loss": float(loss).hex(),
        }
        with (self.folder / f"rank{trainer.global_rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def trace() -> list[Callback]:
    """The tracing callback where the environment asks for it."""
    folder = os.environ.get(VARIABLE)
    return [Trace(Path(folder))] if folder else []
