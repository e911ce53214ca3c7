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

    A model with several heads gives the logits of each, one without a head its last hidden states (n, D).
    """
    was = model.training
    model.eval()
    found = [_at_tokens(t.float(), inputs) for inputs in sample for t in _scores(model(**inputs))]
    model.train(was)
    return found


def _scores(outputs: Mapping[str, object]) -> list[Tensor]:
    """What a model says: its logits, else its last hidden states, else all tensors that it gives."""
    for name in ("logits", "last_hidden_state"):
        only = outputs.get(name)
        if isinstance(only, Tensor):
            return [only]
    return [t for t in outputs.values() if isinstance(t, Tensor)]


def _at_tokens(scores: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    mask = inputs.get("attention_mask")
    return scores if scores.ndim < 3 else scores.flatten(0, 1) if mask is None else scores[mask.bool()]


def compare(expected: list[Tensor], got: list[Tensor], rows: int, allowed: float) -> Parity:
    """Compare the logits of two models on the same batches."""
    if [e.shape for e in expected] != [g.shape for g in got]:
        return Parity(largest=float("inf"), divergence=float("inf"), agreement=0.0, tolerance=allowed, rows=rows)
    pairs = list(zip(expected, got, strict=True))
    scale = torch.stack([left.abs().max() for left in expected]).max().clamp(min=torch.finfo(torch.float32).tiny)
    differences = torch.stack([(left - right).abs().max() for left, right in pairs])
    divergence = sum(float(F.kl_div(r.log_softmax(-1), e.log_softmax(-1), log_target=True, reduction="sum")) for e, r in pairs)
    agreement = sum(int((left.argmax(-1) == right.argmax(-1)).sum()) for left, right in pairs)
    positions = sum(len(left) for left in expected)
    return Parity(
        largest=float(differences.max() / scale),
        divergence=max(divergence / positions, 0.0),
        agreement=agreement / positions,
        tolerance=allowed,
        rows=rows,
    )
