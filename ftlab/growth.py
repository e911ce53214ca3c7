"""Vocabulary growth: new embedding rows beside frozen old ones, so that only the new rows need to be trained and saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError


class NewRows(nn.Module):
    """The rows that a grown vocabulary adds: `weight` is (new tokens, D)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class GrownEmbedding(nn.Module):
    """An input embedding with rows added at its end."""

    def __init__(self, base: nn.Embedding, new: NewRows) -> None:
        super().__init__()
        self.base = base
        self.new = new

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D)."""
        first = self.base.num_embeddings
        old: Tensor = self.base(ids.clamp(max=first - 1))
        fresh = F.embedding((ids - first).clamp(min=0), self.new.weight)
        scale = getattr(self.base, "embed_scale", None)  # Gemma multiplies inside its embedding
        if scale is not None:
            fresh = fresh * scale
        return torch.where((ids >= first)[..., None], fresh.to(old.dtype), old)


class GrownLinear(nn.Module):
    """An output embedding with rows added at its end; a bias has none for them."""

    def __init__(self, base: nn.Linear, new: NewRows) -> None:
        super().__init__()
        self.base = base
        self.new = new

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) hidden states → (…, V) logits."""
        old: Tensor = self.base(hidden)
        return torch.cat([old, F.linear(hidden, self.new.weight.to(hidden.dtype)).to(old.dtype)], dim=-1)


def grow(model: nn.Module, size: int) -> dict[str, nn.Module]:
    """Give `model` a vocabulary of `size` tokens; new rows start at the mean of the old ones.

    Args:
        model: A HF model, changed in place.
        size: V after growth.

    Returns:
        Name → the modules that hold new rows; empty where the embedding is already large enough.

    Raises:
        ConfigError: The embedding is not a plain one.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(embedding, nn.Embedding):
        raise ConfigError(f"model.backbone.new_tokens: {type(model).__name__} has no plain input embedding to grow; use tokens it knows.")
    added = size - embedding.num_embeddings
    if added <= 0:
        return {}
    output = model.get_output_embeddings()  # type: ignore[operator]
    rows = NewRows(_mean_rows(embedding, added))
    grown: list[nn.Module] = [rows]
    model.set_input_embeddings(GrownEmbedding(embedding, rows))  # type: ignore[operator]
    if isinstance(output, nn.Linear):
        tied = output.weight is embedding.weight
        out_rows = rows if tied else NewRows(_mean_rows(output, added))
        model.set_output_embeddings(GrownLinear(output, out_rows))  # type: ignore[operator]
        if not tied:
            grown.append(out_rows)
    model.config.get_text_config().vocab_size = size  # type: ignore[union-attr, operator]
    return {name: m for name, m in model.named_modules() if any(m is g for g in grown)}


def _mean_rows(module: nn.Embedding | nn.Linear, count: int) -> Tensor:
    return module.weight.detach().float().mean(0).to(module.weight.dtype).repeat(count, 1)
