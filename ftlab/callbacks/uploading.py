"""What a run gives to W&B beside its figures."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from ftlab.errors import ConfigError
from ftlab.lean import RunCallback

_LONGEST = 128
"""Characters of an artifact's name."""


class Upload(RunCallback):
    """Logs `export/` as an artifact when the fit is over; an offline run holds it until it is synced.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            raise ConfigError("run.artifact is true, but trainer.logger has no WandbLogger to take the artifact; add one or leave it out.")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        import wandb

        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                artifact = wandb.Artifact(f"{self.folder.parent.name}-{self.folder.name}"[-_LONGEST:], type="model")
                artifact.add_dir(str(self.folder / "export"))
                logger.experiment.log_artifact(artifact)
