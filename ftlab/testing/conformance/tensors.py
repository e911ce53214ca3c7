"""What checks ask of any model: its logits, its tensors, and which of them have moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits in evaluation mode; of a language model only those at real tokens, (n, V)."""
    model.eval()
    found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()] if found.ndim == 3 else found


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of a model."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def moved(before: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    """Names of the tensors that have other bits than before."""
    now = model.state_dict()
    return {name for name, t in before.items() if name in now and not _same_bits(t, now[name])}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.contiguous().view(-1).view(torch.uint8), second.detach().contiguous().view(-1).view(torch.uint8))


def trainable(model: nn.Module) -> set[str]:
    """Names of the trainable parameters."""
    return {name for name, p in model.named_parameters() if p.requires_grad}


def few(names: Iterable[str]) -> str:
    """Some names for a sentence."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
