"""Vocabulary growth: rows for new tokens beside frozen old ones, so that only the new rows need to be trained and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError
from ftlab.heads import output_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftlab.backbone import Backbone


class NewRows(nn.Module):
    """The rows of the new tokens: `weight` is (new tokens, D), in float32 over a base of any type."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class GrownEmbedding(nn.Module):
    """An input embedding in which the rows from `first` on are new; the table below may hold unused ones in their place."""

    def __init__(self, base: nn.Embedding, new: NewRows, first: int) -> None:
        super().__init__()
        self.base = base
        self.new = new
        self.first = first

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D)."""
        count = len(self.new.weight)
        is_new = (ids >= self.first) & (ids < self.first + count)
        old: Tensor = self.base(ids.masked_fill(is_new, 0))
        fresh = F.embedding((ids - self.first).clamp(0, count - 1), self.new.weight)
        scale = getattr(self.base, "embed_scale", None)  # Gemma multiplies inside its embedding
        if scale is not None:
            fresh = fresh * scale
        return torch.where(is_new[..., None], fresh.to(old.dtype), old)


class GrownLinear(nn.Module):
    """An output embedding in which the rows from `first` on are new; a bias counts for those that the map below has a place for."""

    def __init__(self, base: nn.Linear, new: NewRows, first: int) -> None:
        super().__init__()
        self.base = base
        self.new = new
        self.first = first

    @property
    def bias(self) -> Tensor | None:
        """That of the map below; BERT and its kin ask their output embedding for it."""
        return self.base.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) hidden states → (…, V) logits."""
        old: Tensor = self.base(hidden)
        new = F.linear(hidden, self.new.weight.to(hidden.dtype), self._new_bias()).to(old.dtype)
        return torch.cat([old[..., : self.first], new, old[..., self.first + new.shape[-1] :]], dim=-1)

    def _new_bias(self) -> Tensor | None:
        """Of the new rows, where the table below has unused ones in their place; it is 0 for those beyond."""
        count = len(self.new.weight)
        known = None if self.bias is None else self.bias[self.first : self.first + count]
        return None if known is None or not len(known) else F.pad(known, (0, count - len(known)))


def grow(model: nn.Module, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> dict[str, nn.Module]:
    """Give `model` a row for every token; new rows start at the mean of the old ones.

    Args:
        model: A HF model, changed in place.
        backbone: Where it came from; says which tokens are new.
        tokenizer: The backbone's, with the new tokens.

    Returns:
        Name → the modules that hold new rows; empty where no token is new.

    Raises:
        ConfigError: The tokenizer belongs to another model, or an embedding is not a plain one.
    """
    size = len(tokenizer)
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    rows = int(embedding.weight.shape[0])
    first = _first_new(backbone, tokenizer, rows)
    if first > rows:
        raise ConfigError(
            f"model.backbone: the tokenizer of {backbone.tokenizer or backbone.name} has {first} tokens, "
            f"but {backbone.name} has an embedding of {rows}, so they belong to different models; name the model's own tokenizer."
        )
    if first >= size:
        return {}
    if not isinstance(embedding, nn.Embedding):
        raise ConfigError(f"model.backbone.new_tokens: {type(model).__name__} has no plain input embedding to grow; use tokens it knows.")
    new = NewRows(_mean_rows(embedding, first, size - first))
    grown = [new]
    output = output_of(model)
    if isinstance(output, nn.Linear) and not _gives_logits(model, output, rows):
        raise ConfigError(f"model.backbone.new_tokens: {type(model).__name__} has no plain output embedding to grow; use tokens it knows.")
    model.set_input_embeddings(GrownEmbedding(embedding, new, first))  # type: ignore[operator]
    if isinstance(output, nn.Linear):
        tied = output.weight is embedding.weight
        grown += [] if tied else [NewRows(_mean_rows(output, first, size - first))]
        put_in_place(model, output, GrownLinear(output, grown[-1], first))
    model.config.get_text_config().vocab_size = max(size, rows)  # type: ignore[union-attr, operator]
    return {name: m for name, m in model.named_modules() if any(m is g for g in grown)}


def put_in_place(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put an output embedding wherever another one stands; the setter of BERT and its kin would also share out its bias.

    Args:
        model: Changed in place.
        old: A module of it.
        new: What takes its place.
    """
    for name in [name for name, m in model.named_modules(remove_duplicate=False) if m is old]:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)


def _first_new(backbone: Backbone, tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """The id of the first token that needs a new row, or the number of tokens where none does."""
    size = len(tokenizer)
    if backbone.new_tokens:
        return min(int(tokenizer.convert_tokens_to_ids(token)) for token in backbone.new_tokens)  # type: ignore[arg-type]
    named_last = backbone.pad_token != "auto" and tokenizer.pad_token_id == size - 1
    return rows if named_last and rows == size - 1 else size


def _gives_logits(model: nn.Module, output: nn.Linear, rows: int) -> bool:
    """Whether `output` alone makes the logits: DeBERTa's newer head has the input's rows for it, MobileBERT's a second map beside it."""
    heads = [children for children in (list(m.children()) for m in model.modules()) if any(m is output for m in children)]
    second = any(isinstance(m, nn.Linear) and m.in_features == rows for children in heads for m in children if m is not output)
    return output.out_features == rows and not second


def _mean_rows(module: nn.Embedding | nn.Linear, used: int, count: int) -> Tensor:
    return module.weight.detach()[:used].float().mean(0).repeat(count, 1)
