"""A plugin for overhead.py: ftlab's LoRA, which notes CPU time and loss of every step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ftlab import TuningStrategy
from ftlab.batch import Batch
from ftlab.strategies.lora import LoRA

sys.path.insert(0, str(Path(__file__).parent))
from workload import ALPHA, RANK, TARGETS, Recorder, seed_adapter  # of this folder

recorder = Recorder()


@dataclass(frozen=True, kw_only=True)
class TimedLoRA(TuningStrategy):
    """LoRA with a clock."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        adapted = LoRA(r=RANK, alpha=ALPHA, target_modules=TARGETS).apply(model, heads)
        seed_adapter(adapted)
        return adapted

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        recorder.loss(outputs.sums["lm"], outputs.counts["lm"])  # type: ignore[attr-defined]
        return {}

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        recorder.step()
