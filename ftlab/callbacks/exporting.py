"""The end of a fit: what was trained, in a form that others open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from ftlab import checkpoint_io
from ftlab.export import export_run, put
from ftlab.model_card import Facts
from ftlab.redact import redacted
from ftlab.run_callback import RunCallback

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule


class Export(RunCallback):
    """Writes `export/` from the best checkpoint, or from the last where nothing was validated.

    Args:
        folder: The run's folder.
        config: Gives the complete configuration.
    """

    def __init__(self, folder: Path, config: Callable[[], dict[str, Any]]) -> None:
        self.folder = folder
        self.config = config

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: FinetuneModule = pl_module  # type: ignore[assignment]
        target = self.folder / "export"
        if not trainer.is_global_zero or target.exists():
            return
        checkpoints = self.folder / "checkpoints"
        best = checkpoint_io.Manifest.read(checkpoints).best
        if best is not None:
            put(module, checkpoint_io.load(checkpoints / best)["state_dict"])
        metrics = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        export_run(module, target, Facts(config=redacted(self.config()), metrics=metrics))
