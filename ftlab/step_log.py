"""What is logged about training, every few optimiser steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule


class StepLog(Callback):
    """Logs the loss of a step and its learning rate before a checkpoint of the step is saved.

    It writes to the loggers itself: Lightning would do so after the checkpoint, and a run that is killed in between would lose the
    line. Nothing asks the device for a number in other steps.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        module: FinetuneModule = pl_module  # type: ignore[assignment]
        step = trainer.global_step
        if not module.window_ended(batch_idx):
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the logger connector
        if step % every and step != module.total_steps() and not trainer.is_last_batch:
            return
        figures = module.window_figures()
        for logger in trainer.loggers:
            logger.log_metrics({**figures, "epoch": trainer.current_epoch}, step)
        module.log_dict(figures, prog_bar=True, logger=False)
