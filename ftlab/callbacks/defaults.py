"""The callbacks that every run has beside those of its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from ftlab.callbacks.predictions import PredictionWriter
from ftlab.callbacks.progress import progress
from ftlab.callbacks.record import Record
from ftlab.callbacks.report import Report
from ftlab.callbacks.throughput import Throughput
from ftlab.run_folder import RunOptions


def run_callbacks(folder: Path, config: Callable[[], dict[str, Any]], options: RunOptions, validates: bool, trainer: Any) -> list[Callback]:
    """Throughput, progress, records, checkpoints, predictions and the closing report.

    Args:
        folder: The run's folder.
        config: Gives the complete configuration.
        options: How predictions are written.
        validates: Whether there is a validation loss to choose the best checkpoint by.
        trainer: The `trainer` section; its own checkpoint callback and switches are respected.
    """
    throughput = Throughput()
    callbacks: list[Callback] = [
        throughput,
        Record(folder, config, throughput),
        PredictionWriter(folder, options.predictions),
        Report(folder),
    ]
    callbacks += progress(throughput, trainer.enable_progress_bar is not False)
    own = trainer.callbacks if isinstance(trainer.callbacks, list) else []
    if trainer.enable_checkpointing is not False and not any(isinstance(c, ModelCheckpoint) for c in own):
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints",
                filename="best" if validates else "last",
                monitor="val_loss" if validates else None,
                save_last=validates,
                save_on_train_epoch_end=not validates,
                enable_version_counter=False,
            )
        )
    return callbacks
