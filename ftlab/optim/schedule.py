"""Learning-rate schedules: a pure function of the optimiser step."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ftlab.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then decay; one tick per optimiser step.

    The decay is that of `transformers.get_scheduler`. Its warm-up begins with a learning rate of 0, which wastes the first step;
    ours takes the same number of steps up to the peak and has no such step.

    Args:
        decay: linear or cosine down to `floor`, or constant.
        warmup: Length of the warm-up; below 1 a share of all optimiser steps, from 1 on a number of steps.
        floor: Learning rate at the end as a share of the highest.
    """

    decay: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.03
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < math.inf or (self.warmup >= 1 and self.warmup != int(self.warmup)):
            raise ConfigError(f"model.schedule.warmup is {self.warmup:g}; write a share below 1 or a whole number of optimiser steps.")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"model.schedule.floor is {self.floor:g}; it is a share between 0 and 1.")

    def warmup_steps(self, total: int) -> int:
        """Optimiser steps of warm-up in a run of `total`."""
        return math.ceil(self.warmup * total) if self.warmup < 1 else int(self.warmup)

    def factor(self, step: int, total: int) -> float:
        """Learning rate of a step as a share of the highest.

        Args:
            step: Optimiser steps already done, counted from 0.
            total: Optimiser steps of the whole run.
        """
        warmup = self.warmup_steps(total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.decay == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        left = 1.0 - progress if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.floor + (1.0 - self.floor) * left

    def build(self, optimizer: Optimizer, total: int) -> LambdaLR:
        """The torch scheduler for a run of `total` optimiser steps."""
        if self.warmup_steps(total) >= total > 1:
            log.warning(
                "model.schedule.warmup lasts %d of the run's %d optimiser steps, so the learning rate never reaches its peak",
                self.warmup_steps(total), total,
            )  # fmt: skip
        return _Scheduled(optimizer, lambda step: self.factor(step, total))

    def set_rates(self, scheduler: LRScheduler, total: int) -> None:
        """Give the optimiser the rates of the scheduler's step in a run of `total`, whatever a checkpoint stored."""
        factor = self.factor(scheduler.last_epoch, total)
        for group, base in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = base * factor


class _Scheduled(LambdaLR):
    """The same rates with less work at each step: torch looks who calls, and in which order."""

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch += 1
        self._last_lr = [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
