"""Whether a reopened model is the model that was exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXACT = 1e-6
"""Largest difference of logits by their largest size, where the same float32 numbers are multiplied in the same order."""
REARRANGED = 1e-5
"""The same where float32 weights were added up before: merged, or PiSSA and OLoRA as a plain adapter."""
_ROUNDED = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The same where weights or activations are of a shorter type: some 10 units in the last place, because the layers' errors add up."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How two models differ on sample input.

    Args:
        largest: Largest difference of two logits, divided by the largest logit.
        divergence: Mean KL divergence over positions, in nats.
        agreement: Share of positions with the same largest logit.
        tolerance: What `largest` may be.
        rows: Rows compared.
    """

    largest: float
    divergence: float
    agreement: float
    tolerance: float
    rows: int

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.largest <= self.tolerance

    def __str__(self) -> str:
        return (
            f"largest difference {self.largest:.3g} of the logits' scale (tolerance {self.tolerance:g}), "
            f"KL {self.divergence:.3g}, argmax agreement {self.agreement:.2%}, on {self.rows} rows"
        )


def tolerance(dtype: torch.dtype, rearranged: bool) -> float:
    """What two models may differ by.

    Args:
        dtype: The least precise type that weights have or had.
        rearranged: Whether weights were added up before the input is multiplied.
    """
    if dtype == torch.float32:
        return REARRANGED if rearranged else EXACT
    return _ROUNDED[dtype]


@torch.no_grad()
def logits_of(model: nn.Module, sample: list[Mapping[str, Tensor]]) -> list[Tensor]:
    """Logits (n, V) of every batch of `sample`, in float32, at the positions that are no padding; `model` is left in its mode.

    A model without a head gives its last hidden states (n, D).
    """
    was = model.training
    model.eval()
    found = []
    for inputs in sample:
        outputs = model(**inputs)
        kept = outputs.get("logits")
        logits: Tensor = (outputs.last_hidden_state if kept is None else kept).float()
        mask = inputs.get("attention_mask")
        found.append(logits if logits.ndim < 3 else logits.flatten(0, 1) if mask is None else logits[mask.bool()])
    model.train(was)
    return found


def compare(expected: list[Tensor], got: list[Tensor], rows: int, allowed: float) -> Parity:
    """Compare the logits of two models on the same batches."""
    if [e.shape for e in expected] != [g.shape for g in got]:
        return Parity(largest=float("inf"), divergence=float("inf"), agreement=0.0, tolerance=allowed, rows=rows)
    left, right = torch.cat(expected), torch.cat(got)
    scale = left.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    divergence = F.kl_div(right.log_softmax(-1), left.log_softmax(-1), log_target=True, reduction="batchmean")
    return Parity(
        largest=float((left - right).abs().max() / scale),
        divergence=float(divergence.clamp(min=0)),
        agreement=float((left.argmax(-1) == right.argmax(-1)).float().mean()),
        tolerance=allowed,
        rows=rows,
    )
