"""LoReFT: editing hidden states in a low-rank subspace, at the first and last tokens of a row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.positions import Positions
from ftlab.strategies.sublayers import chosen_layers, first_tensor


class Edit(nn.Module):
    """Φ(h) = h + Rᵀ(W·h + b − R·h) (Wu et al. 2024, eq. 2): W is (R, D), b is (R), R is (R, D) with orthonormal rows.

    R is what Gram–Schmidt makes of the rows of `basis`, so any step of an optimiser leaves it orthonormal, weight decay included
    (torch's own parametrisation by Householder vectors becomes zero when its diagonal decays). W starts at R, so Φ starts at the
    identity; the paper starts it at random. Tensors are in float32; the edit is computed in the type of h.
    """

    def __init__(self, width: int, r: int) -> None:
        super().__init__()
        kind = torch.float32  # the default type is a shorter one while Lightning builds a model for bf16-true
        self.basis = nn.Parameter(nn.init.orthogonal_(torch.empty(r, width, dtype=kind)))
        self.source = nn.Parameter(self.rotation().detach().clone())
        self.bias = nn.Parameter(torch.zeros(r, dtype=kind))

    def rotation(self) -> Tensor:
        """R, (R, D), in float32."""
        columns, triangle = torch.linalg.qr(self.basis.float().mT)
        signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # with which the answer is unique
        rotation: Tensor = (columns * signs).mT
        return rotation

    def forward(self, hidden: Tensor, where: Tensor) -> Tensor:
        """(B, T, D) hidden states, of which those at `where` (B, T) are edited."""
        rotation, kind = self.rotation(), hidden.dtype
        off = F.linear(hidden, (self.source - rotation).to(kind), self.bias.to(kind)).masked_fill(~where[..., None], 0)
        return hidden + (off @ rotation.to(kind)).to(kind)


class Edited(nn.Module):
    """A layer and the edits of what it returns.

    A forward hook on the layer would run again when activations are recomputed, after the model has been left and its mask forgotten.
    """

    def __init__(self, layer: nn.Module, edits: list[Edit], positions: Positions) -> None:
        super().__init__()
        self.layer = layer
        self.edits = nn.ModuleList(edits)
        self.positions = positions

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)  # models ask their layers for what kind they are

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # a layer of any family
        output = self.layer(*args, **kwargs)
        hidden = first_tensor(output)
        assert hidden is not None
        if not self.positions.now:
            raise RuntimeError("the layer was called by itself, so which tokens begin a row is unknown; call the model around it")
        for edit, where in zip(self.edits, self.positions.now, strict=True):
            hidden = edit(hidden, where)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@dataclass(frozen=True, kw_only=True)
class LoReFT(TuningStrategy):
    """Edit hidden states in a subspace of R dimensions (Wu et al. 2024, LoReFT): h + Rᵀ(W·h + b − R·h) after each layer.

    Only the first and last real tokens of a row are edited, whatever the padding and the other rows. Where rows are packed, every
    row is known by its `position_ids`.

    Args:
        r: Rank; dimensions of the subspace.
        layers: Numbers of the layers after which to edit; null is all.
        first: Tokens at the beginning of each row that are edited.
        last: Tokens at the end of each row that are edited; null is 0 for models that generate, which must not see where a text ends,
            and as many as first for others.
        tied: Whether the first and the last tokens share one edit in each layer.
    """

    traits = Traits(learning_rate=9e-4, paper="Wu et al. 2024, ReFT: Representation Finetuning for Language Models")

    r: int = 4
    layers: list[int] | None = None
    first: int = 4
    last: int | None = None
    tied: bool = True

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"model.tuning.r is {self.r}; a rank is a whole number of at least 1.")
        for name, count in (("first", self.first), ("last", self.last)):
            if count is not None and count < 0:
                raise ConfigError(f"model.tuning.{name} is {count}; it counts tokens, so it must be 0 or more.")
        if self.first == 0 and not self.last:
            raise ConfigError(f"model.tuning.first is 0 and model.tuning.last is {self.last}, so nothing is edited; set one above 0.")
        if self.layers == []:
            raise ConfigError("model.tuning.layers is empty; name at least one layer, or write null.")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        spans = self._spans(model)
        stack, layers, numbers = chosen_layers(model, self.layers)
        width = model.config.get_text_config().hidden_size  # type: ignore[union-attr, operator]
        if self.r > width:
            raise ConfigError(f"model.tuning.r is {self.r}, but hidden states have {width} dimensions; choose {width} or less.")
        model.requires_grad_(False)
        positions = Positions(spans)
        for number in numbers:
            device = next(layers[number].parameters()).device
            layers[number] = Edited(layers[number], [Edit(width, self.r).to(device) for _ in spans], positions)
        for module in _entries(model, stack):
            positions.watch(module)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def _spans(self, model: nn.Module) -> list[tuple[int, int]]:
        """The first and last tokens that each edit of a layer has."""
        can_generate = getattr(model, "can_generate", None)
        generates = callable(can_generate) and bool(can_generate())
        if self.last and generates:
            raise ConfigError(
                f"model.tuning.last is {self.last}, but {type(model).__name__} predicts each token from those before it, and edits that "
                "count from the end would tell it where the text ends; set model.tuning.last to 0."
            )
        last = self.last if self.last is not None else 0 if generates else self.first
        return [(self.first, last)] if self.tied else [span for span in ((self.first, 0), (0, last)) if any(span)]


def _entries(model: nn.Module, stack: str) -> Iterator[nn.Module]:
    """The modules around the stack of layers that see the tokens; a task may call any of them."""
    parts = stack.split(".")
    around = [model.get_submodule(".".join(parts[:i])) for i in range(len(parts))]
    found = [module for module in around if "input_ids" in inspect.signature(module.forward).parameters]
    if not found:
        raise ConfigError(
            f"model.tuning: {type(model).__name__} takes no input_ids, so the tokens of a row cannot be counted; choose LoRA."
        )
    yield from found
