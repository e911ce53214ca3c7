"""What a micro-batch holds on its way from the data module to the loss.

Shape legend of the whole project: B batch · T tokens · V vocabulary · D width · R rank · P prompt length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ftlab.rows import Stored

IGNORE = -100
"""The integer label of a position that is not scored; float labels use NaN."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    Args:
        inputs: What the HF model is called with; `input_ids` (B, T), `attention_mask` (B, T) and the like. Never labels.
        labels: One tensor per head, integer with `IGNORE` or float with NaN where nothing is scored.
        rows: The rows' numbers in their split, counted from 0 (B,); -1 marks a filler.
        window: Head → scored positions of the whole accumulation window on this rank; set on the window's first
            micro-batch only, by the loader.
        tokens: Tokens of the rows, padding left out; set by the loader, so that nothing has to ask the device.
        index: The examples' numbers in the token cache, set by the loader; none for a filler.
        known: What `counts` gives, set by the loader, so that nothing has to ask the device.
        notes: For each example what its task needs to read the outputs, such as the words that tokens are of; it stays on the CPU.
    """

    inputs: dict[str, Tensor]
    labels: dict[str, Tensor]
    rows: Tensor
    window: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    index: tuple[int, ...] = ()
    known: dict[str, int] = field(default_factory=dict)
    notes: tuple[Stored, ...] = ()

    def counts(self) -> dict[str, int]:
        """Scored positions per head, from the labels alone."""
        return self.known or {head: int(scored(labels).count_nonzero()) for head, labels in self.labels.items()}

    def unscored(self) -> Batch:
        """The same inputs with nothing scored: what a rank runs when it has no row left."""
        blank = {head: torch.full_like(t, torch.nan if t.is_floating_point() else IGNORE) for head, t in self.labels.items()}
        return replace(self, labels=blank, rows=torch.full_like(self.rows, -1), known=dict.fromkeys(self.labels, 0))

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; from page-locked memory to a GPU nothing waits for it, which Lightning asks of plain tensors alone."""
        if all(t.device == device for t in (*self.inputs.values(), *self.labels.values())):
            return self
        ahead = device.type == "cuda"
        return replace(
            self,
            inputs={name: t.to(device, non_blocking=ahead) for name, t in self.inputs.items()},
            labels={name: t.to(device, non_blocking=ahead) for name, t in self.labels.items()},
        )

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory."""
        return replace(
            self,
            inputs={name: t.pin_memory() for name, t in self.inputs.items()},
            labels={name: t.pin_memory() for name, t in self.labels.items()},
        )


def scored(labels: Tensor) -> Tensor:
    """Where `labels` holds something to score: not `IGNORE`, not NaN."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORE


def places_of(keep: Tensor, count: int) -> Tensor:
    """Where `keep` (n,) is true, `count` times; where the device can do it, nothing waits for it to count."""
    known = keep.device.type in ("cpu", "cuda")
    return (keep.nonzero_static(size=count) if known else keep.nonzero()).squeeze(1)
