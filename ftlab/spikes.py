"""A loss far above the recent ones: worth a warning, because the gradient was finite and the step was taken."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from ftlab.errors import NumericsError

log = logging.getLogger(__name__)

_SPIKE = 10.0
"""A loss so many times the usual one is worth a warning."""
_MEMORY = 0.1
"""Weight of a step in what is usual."""
_SETTLED = 3
"""Losses before which none is a spike: the largest of them is the first idea of what is usual."""


class Spikes:
    """Compares each loss with those before it; between two reports nothing is computed and no device is asked for a number.

    A usual loss below a tenth of the first ones counts as that much, so that a run whose loss is nearly zero does not warn of every
    row that it still gets wrong.

    Args:
        stop: Whether a spike ends the run.
    """

    def __init__(self, stop: bool = False) -> None:
        self._stop = stop
        self._losses: list[tuple[int, Tensor]] = []
        self._seen = 0
        self._first = self._usual = 0.0

    def add(self, loss: Tensor, step: int) -> None:
        """Note the loss of a step.

        Args:
            loss: This rank's share of it.
            step: Optimiser steps done before it.
        """
        self._losses.append((step + 1, loss.detach()))

    def report(self, sum_ranks: Callable[[Tensor], Tensor]) -> None:
        """Warn of the largest spike since the last call, or end the run; all ranks call it together.

        Args:
            sum_ranks: Adds a tensor over all ranks.

        Raises:
            NumericsError: There was one, and the run is to stop.
        """
        if not self._losses:
            return
        values = sum_ranks(torch.stack([loss for _, loss in self._losses])).tolist()
        ratios = [(self._ratio(abs(value)), step) for value, (step, _) in zip(values, self._losses, strict=True)]
        self._losses = []
        times, step = max(ratios)
        if times < _SPIKE:
            return
        if self._stop:
            raise NumericsError(
                f"the loss of step {step} is {times:.0f} times the usual one (model.stop_at_spike); go on from a checkpoint before it "
                "with trainer.gradient_clip_val or a lower learning rate, or leave out model.stop_at_spike."
            )
        log.warning(
            "the loss of step %d is %.0f times the usual one; its gradient is finite, so the step was taken: "
            "if that goes on, set trainer.gradient_clip_val or lower the learning rate",
            step, times,
        )  # fmt: skip

    def _ratio(self, size: float) -> float:
        """How many times the usual loss this one is; 0 where it is not finite, which is the guard's affair."""
        if not math.isfinite(size):
            return 0.0
        self._seen += 1
        if self._seen <= _SETTLED:
            self._first = self._usual = max(self._usual, size)
            return 0.0
        ratio = size / max(self._usual, self._first / _SPIKE, sys.float_info.min)
        if ratio < _SPIKE:  # a spike does not change what is usual
            self._usual += _MEMORY * (size - self._usual)
        return ratio
