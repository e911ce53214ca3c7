"""One vector from the hidden states of a text."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ftlab.batch import Batch

Pooling: TypeAlias = Literal["mean", "cls", "last"]


def mask_of(inputs: dict[str, Tensor]) -> Tensor:
    """(B, T), 1 at tokens and 0 at padding; a batch without padding has no mask of its own."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask


def pooled(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """(B, T, D) hidden states → (B, D) in float32, padding left out.

    Args:
        states: Of rows that are padded on the right.
        mask: (B, T), 1 at tokens and 0 at padding.
        how: The mean over the tokens, the first, or the last of them.
    """
    if how == "cls":
        return states[:, 0].float()
    if how == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last].float()
    weights = mask[..., None].float()
    return (states.float() * weights).sum(1) / weights.sum(1)


def text_vectors(model: nn.Module, batch: Batch, how: Pooling) -> Tensor:
    """(B, D) vectors of the texts of a batch, by a model without a head."""
    outputs = model(**batch.inputs)
    vectors = pooled(outputs.last_hidden_state, mask_of(batch.inputs), how)
    spare = outputs.get("pooler_output")
    # Nothing else uses a pooler, and DDP waits for ever for the gradient of a parameter that the loss does not depend on.
    return vectors if spare is None else vectors + 0.0 * spare.float().sum()
