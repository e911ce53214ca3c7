"""Tokens per second, time and memory of a fit, without waiting for the device."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ftlab.batch import Batch
from ftlab.lean import RunCallback


class Throughput(RunCallback):
    """Counts the tokens of this rank's batches and the seconds outside validation.

    Tokens are those of the rows, without padding; ranks are taken to run at the same speed.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.started = 0.0
        self.paused = 0.0
        self._pause_began = 0.0
        self._seconds_before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.paused += time.perf_counter() - self._pause_began

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.tokens += batch.tokens * trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self._seconds_before = state_dict["tokens"], state_dict["seconds"]

    def seconds(self) -> float:
        """Seconds since the first batch, validation left out."""
        return self._seconds_before + (time.perf_counter() - self.started - self.paused if self.started else 0.0)

    def rate(self) -> float:
        """Tokens per second so far, over all ranks."""
        return self.tokens / max(self.seconds(), 1e-9)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a CUDA device, else the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
