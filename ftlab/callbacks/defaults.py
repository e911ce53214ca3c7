"""The callbacks that every run has beside those of its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from ftlab.callbacks.checkpoints import Checkpoints, LastValidation, SaveOptions
from ftlab.callbacks.exporting import Export, VerifyMerge
from ftlab.callbacks.features import cached_features
from ftlab.callbacks.learning_guard import LearningGuard
from ftlab.callbacks.predictions import PredictionWriter
from ftlab.callbacks.progress import progress
from ftlab.callbacks.record import Record
from ftlab.callbacks.report import Report
from ftlab.callbacks.throughput import Throughput
from ftlab.callbacks.trace import trace
from ftlab.callbacks.uploading import Upload
from ftlab.errors import ConfigError
from ftlab.run_folder import RunOptions


def run_callbacks(
    folder: Path, config: Callable[[], dict[str, Any]], options: RunOptions, save: SaveOptions, trainer: Any
) -> list[Callback]:
    """Throughput, progress, records, checkpoints, predictions and the closing report.

    Args:
        folder: The run's folder.
        config: Gives the complete configuration.
        options: How predictions are written.
        save: When checkpoints are saved.
        trainer: The `trainer` section; its own checkpoint callback and switches are respected.
    """
    throughput = Throughput()
    callbacks: list[Callback] = [
        throughput,
        Record(folder, config, throughput),
        LearningGuard(options.learning_guard),
        PredictionWriter(folder, options.predictions),
        Export(folder, config),
        *([Upload(folder)] if options.artifact else []),
        *([VerifyMerge(folder)] if save.verify_merge else []),
        Report(folder),
    ]
    callbacks += trace()
    callbacks += cached_features()
    callbacks += progress(throughput, trainer.enable_progress_bar is not False)
    own = trainer.callbacks if isinstance(trainer.callbacks, list) else []
    if any(isinstance(c, ModelCheckpoint) for c in own):
        raise ConfigError("trainer.callbacks has a ModelCheckpoint, whose files are not verified; use the keys under save.")
    if trainer.enable_checkpointing is not False:
        checkpoints = Checkpoints(folder / "checkpoints", save)
        callbacks = [LastValidation(checkpoints), *callbacks, checkpoints]
    return callbacks
