"""The last lines of a run: what came out, and where it is."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from ftlab.lean import RunCallback, module_of

log = logging.getLogger(__name__)


class Report(RunCallback):
    """Prints a summary at the end of a fit, and the figures of a validation or test.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began_at = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began_at = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module = module_of(pl_module)
        loss = trainer.callback_metrics.get("val_loss")
        base = module.base_figures.get("loss")
        if loss is not None and base is not None:
            verdict = "fell below" if float(loss) < base else "did not fall below"
            log.info("validation loss %.4f %s the untuned base's %.4f", float(loss), verdict, base)
        log.info("%d optimiser steps; results in %s", trainer.global_step, self.folder)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.training and not trainer.sanity_checking and trainer.state.fn == "validate":
            self._print(trainer, "val_")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer, "test_")

    def _print(self, trainer: Trainer, prefix: str) -> None:
        if not trainer.is_global_zero:
            return
        table = Table(title=str(self.folder), title_justify="left")
        table.add_column("figure")
        table.add_column("value", justify="right")
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix):
                table.add_row(name, f"{float(value):.4f}")
        Console().print(table)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            log.info("predictions in %s", self.folder)
