"""An accumulation window: each micro-batch's loss as its exact share of the window's mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ftlab.tasks.base import Outputs


class Window:
    """The micro-batches of one optimiser step on this rank.

    Args:
        counts: Head → scored positions of the window on this rank, as the loader stamped them.
        device: Where sums over ranks are taken.
        sum_ranks: Adds a tensor over all ranks; None on a single one, where no count has to leave the CPU.
    """

    def __init__(self, counts: Mapping[str, int], device: torch.device, sum_ranks: Callable[[Tensor], Tensor] | None = None) -> None:
        self.figures: dict[str, Tensor] = {}
        """What has been noted so far, still on the device."""
        self.counts: Mapping[str, float | Tensor] = {head: max(1.0, n) for head, n in counts.items()}
        """Head → scored positions over all ranks, at least 1."""
        self._scored: Later | bool = any(counts.values())
        if sum_ranks is not None:
            total = sum_ranks(torch.tensor([float(n) for n in counts.values()], device=device))
            self._scored = Later(total.any())
            self.counts = dict(zip(counts, total.clamp(min=1).unbind(), strict=True))

    def loss(self, outputs: Outputs, weights: Mapping[str, float]) -> Tensor:
        """A micro-batch's share of the window's loss over all ranks."""
        shares = [_weighted(weights[head], outputs.sums[head]) / count for head, count in self.counts.items()]
        return shares[0] if len(shares) == 1 else torch.stack(shares).sum()

    def part(self, outputs: Outputs) -> Tensor:
        """The part of the window's scored positions that a micro-batch holds, as a mean over the heads."""
        return torch.stack([outputs.counts[head] / count for head, count in self.counts.items()]).mean()

    def note(self, name: str, share: Tensor) -> None:
        """Add a micro-batch's share to a figure of the window."""
        share = share.detach()
        self.figures[name] = self.figures[name] + share if name in self.figures else share

    @property
    def scored(self) -> bool:
        """Whether any rank has a scored position."""
        return bool(self._scored)


def _weighted(weight: float, value: Tensor) -> Tensor:
    return value if weight == 1 else weight * value  # one operation less in the graph of nearly every run


class Later:
    """A number on its way from the device; who reads it waits for that copy, not for what the device was given since.

    Args:
        value: A scalar tensor.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if value.is_cuda else None
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(value.device))

    def __float__(self) -> float:
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._value)

    def __bool__(self) -> bool:
        return float(self) != 0
