"""What is logged about training, every few optimiser steps."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ftlab.lean import RunCallback, module_of


class StepLog(RunCallback):
    """Logs the loss of a step and its learning rate before a checkpoint of the step is saved.

    It writes to the loggers itself: Lightning would do so after the checkpoint, and a run that is killed in between would lose the
    line. What callbacks and the bar read is set directly as well: `log_dict` costs every step, also those without a line. Nothing
    asks the device for a number in other steps.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        module = module_of(pl_module)
        step = trainer.global_step
        if not module.window_ended(batch_idx):
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the logger connector
        if step % every and step != module.total_steps and not trainer.is_last_batch:
            return
        figures = module.window_figures()
        for logger in trainer.loggers:
            logger.log_metrics({**figures, "epoch": trainer.current_epoch}, step)
        trainer.progress_bar_metrics.update(figures)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
