"""A small strategy without a fault: low-rank updates of linear maps. The broken ones each change one thing in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.targets import match_targets


def sizes(base: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear map."""
    if isinstance(base, Conv1D):
        return int(base.weight.shape[1]), int(base.weight.shape[0])
    assert isinstance(base, nn.Linear)
    return base.out_features, base.in_features


class Low(nn.Module):
    """y = f(x) + scale · B·A·x."""

    def __init__(self, base: nn.Module, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        out, wide = self.measured(base)
        self.a = nn.Parameter(torch.randn(rank, wide) / wide**0.5)
        self.b = nn.Parameter(torch.zeros(out, rank))

    def measured(self, base: nn.Module) -> tuple[int, int]:
        return sizes(base)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out + self.scale * self.low(x).to(out.dtype)

    def low(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class Sound(TuningStrategy):
    """Add a product of two small matrices to linear maps.

    Args:
        rank: Of the product.
        scale: Its factor.
        targets: Names of linear maps.
    """

    traits = Traits(mergeable=False)
    layer: ClassVar[type[Low]] = Low

    rank: int = 4
    scale: float = 2.0
    targets: str | list[str] = "all-linear"

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.requires_grad_(False)
        for name in self.found(model, heads):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, self.layer(model.get_submodule(name), self.rank, self.scale))
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def found(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> list[str]:
        return match_targets(model, self.targets, None, heads, "model.tuning.targets")


def lows(model: nn.Module) -> list[Low]:
    return [m for m in model.modules() if isinstance(m, Low)]


@dataclass(frozen=True, kw_only=True)
class Merging(Sound):
    """The same with a merged form."""

    traits = Traits(mergeable=True)

    def merge(self, model: nn.Module) -> nn.Module:
        for name, module in list(model.named_modules()):
            if isinstance(module, Low):
                update = self.factor() * module.b.detach() @ module.a.detach()
                base = module.base
                assert isinstance(base, nn.Linear | Conv1D)
                base.weight.data += update.t() if isinstance(base, Conv1D) else update
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, base)
        return model

    def factor(self) -> float:
        return self.scale
