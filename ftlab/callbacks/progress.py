"""The progress bar on a terminal; plain lines where the output is a file."""

from __future__ import annotations

import logging
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from ftlab.callbacks.throughput import Throughput, peak_memory
from ftlab.lean import RunCallback

log = logging.getLogger(__name__)


class Bar(TQDMProgressBar):
    """Lightning's bar with loss, tokens per second and memory.

    Args:
        throughput: Where the rate comes from.
    """

    def __init__(self, throughput: Throughput) -> None:
        super().__init__(refresh_rate=10)
        self.throughput = throughput

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        return {**shown, **_figures(self.throughput, pl_module)}


class Lines(RunCallback):
    """One line per validation, for logs.

    Args:
        throughput: Where the rate comes from.
    """

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or not self.throughput.tokens:
            return
        figures = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items() if k.startswith(("train_loss", "val_"))}
        figures |= _figures(self.throughput, pl_module)
        log.info("step %d: %s", trainer.global_step, ", ".join(f"{k} {v}" for k, v in figures.items()))


def _figures(throughput: Throughput, module: LightningModule) -> dict[str, str]:
    return {"tok/s": f"{throughput.rate():,.0f}", "GiB": f"{peak_memory(module.device) / 2**30:.2f}"}


def on_terminal() -> bool:
    """Whether a bar that redraws itself can be shown."""
    return sys.stderr.isatty()


def progress(throughput: Throughput, wanted: bool) -> list[Callback]:
    """The bar on a terminal, lines elsewhere, nothing where it is not wanted."""
    if not wanted:
        return []
    return [Bar(throughput) if on_terminal() else Lines(throughput)]
