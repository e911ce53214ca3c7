"""A loss or gradient that is not finite ends the run, or is left out a set number of times."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ftlab.errors import NumericsError
from ftlab.fingerprints import words
from ftlab.window import Later

log = logging.getLogger(__name__)

_OVERFLOWS = 10
"""Steps in a row that fp16's loss scaling may leave out while it looks for a scale that fits."""


class Guard:
    """Looks at the norm of every step's gradient.

    A loss that is not finite makes its gradient so, on every rank, because ranks add their gradients: all come to the same verdict.

    Args:
        allowed: Steps that may be left out before the run ends.
        scaled: Whether fp16's scaler leaves out steps of its own.

    `found` holds, for each step that was not taken, its number, the gradient's norm and the rows.
    """

    def __init__(self, allowed: int, scaled: bool) -> None:
        self.allowed = allowed
        self.scaled = scaled
        self.left_out = 0
        self.overflows = 0
        self.rows: list[Tensor] = []
        self.found: list[dict[str, object]] = []
        self._pending: tuple[Later, int, list[Tensor]] | None = None

    def begin(self) -> None:
        """A new accumulation window."""
        self.rows = []

    def judge(self, norm: Tensor, step: int) -> bool:
        """Whether the optimiser may take the step.

        On a GPU the answer is asked for one step later, so that nothing waits for the device, unless steps may be left out.

        Args:
            norm: Norm of the whole gradient.
            step: Optimiser steps done.

        Raises:
            NumericsError: It is not finite, and no more steps may be left out.
        """
        self.settle()
        self._pending = (Later(norm), step, self.rows)
        if norm.device.type == "cpu" or self.allowed or self.scaled:
            return self.settle()
        return True

    def settle(self) -> bool:
        """Answer for the step that was put off; called before anything is saved."""
        if self._pending is None:
            return True
        (norm, step, parts), self._pending = self._pending, None
        value = float(norm)
        if math.isfinite(value):
            self.overflows = 0
            return True
        if self.scaled and self.overflows < _OVERFLOWS:
            self.overflows += 1
            log.warning("step %d is left out by fp16's loss scaling, %d of at most %d in a row", step + 1, self.overflows, _OVERFLOWS)
            return True  # the scaler leaves the step out itself
        rows = _of_all_ranks([row for part in parts for row in part.tolist() if row >= 0])
        self.found.append({"step": step + 1, "gradient": str(value), "rows": rows})
        if self.left_out < self.allowed:
            self.left_out += 1
            log.warning("step %d is left out: its gradient is %s; rows %s", step + 1, value, _short(rows))
            return False
        before = f" after {self.overflows} that fp16's loss scaling left out" if self.overflows else ""
        raise NumericsError(
            f"the gradient of step {step + 1} is {value}{before}, from rows {_short(rows)}; the last checkpoint is untouched: look at "
            "these rows, lower the learning rate, or set model.skip_nonfinite to leave out a few such steps."
        )


def _of_all_ranks(rows: list[int]) -> list[int]:
    """The rows of every rank: all come here together, and any of them may have had the bad one."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered: list[list[int]] = [[]] * dist.get_world_size()
    dist.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]


def _short(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:16]))
    return shown if len(rows) <= 16 else f"{shown} and {len(rows) - 16} more"


def gradient_norm(optimizer: Optimizer, loss: Tensor | None = None) -> Tensor:
    """Norm of all gradients together; NaN where a loss is given that is not finite, whatever its gradient is."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    return norm if loss is None else norm + 0 * loss


def frozen_sums(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, tuple[int, int]]:
    """Name → two sums over the bits of each frozen tensor, which change when it does."""
    return {name: tensor_sums(p.detach()) for name, p in parameters if not p.requires_grad}


def check_frozen(before: Mapping[str, tuple[int, int]], parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse a run in which a frozen tensor changed.

    Args:
        before: `frozen_sums` of the beginning.
        parameters: The same parameters now.

    Raises:
        NumericsError: One has other bits, or is not frozen any more.
    """
    now = frozen_sums(parameters)
    changed = sorted(name for name, sums in before.items() if now.get(name) != sums)
    if changed:
        raise NumericsError(f"the frozen tensor '{changed[0]}' changed in the run ({len(changed)} did); mend the strategy.")


def tensor_sums(tensor: Tensor) -> tuple[int, int]:
    """Two sums over the bits of a tensor, which change when any of them does or two numbers change places."""
    wide, rest = words(tensor)
    both = torch.cat([wide, rest.long()]) if len(rest) else wide
    place = torch.arange(len(both), device=both.device)
    return int(both.sum()), int((both * (place * 2 + 1)).sum())
