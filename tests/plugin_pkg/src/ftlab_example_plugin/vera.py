"""VeRA (Kopiczko, Blankevoort and Asano 2024, equation 2): y = W x + b ⊙ B (d ⊙ A x), of which b and d alone are trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.targets import add_to_weight, features, match_targets, replace_module


class Scaled(nn.Module):
    """A linear map with its own d (R) and b (out) around A (R, in) and B (out, R), which all maps share."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, start: float) -> None:
        super().__init__()
        self.base, (inside, outside), device = base, features(base), base.weight.device
        self.register_buffer("shared_a", a[:, :inside].to(device), persistent=False)
        self.register_buffer("shared_b", b[:outside].to(device), persistent=False)
        self.d = nn.Parameter(torch.full((len(a),), start, device=device))
        self.b = nn.Parameter(torch.zeros(outside, device=device))

    def delta(self) -> Tensor:
        """The change of the weight (out, in)."""
        return self.b[:, None] * self.shared_b @ (self.d[:, None] * self.shared_a)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + nn.functional.linear(x, self.delta().to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class VeRA(TuningStrategy):
    """Train two vectors around frozen random matrices that all layers share.

    Args:
        r: Rank of the shared matrices.
        start: First value of d.
        seed: Of the matrices, which are made anew instead of being stored.
        target_modules: all-linear, a regular expression for whole names, or a list of names such as query.
    """

    traits = Traits(mergeable=True, learning_rate=5e-3, paper="Kopiczko et al. 2024, VeRA: Vector-based Random Matrix Adaptation")

    r: int = 64
    start: float = 0.1
    seed: int = 0
    target_modules: str | list[str] = "all-linear"

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.requires_grad_(False)
        maps = {name: model.get_submodule(name) for name in match_targets(model, self.target_modules, None, heads)}
        width = max(max(features(m)) for m in maps.values())
        a, b = torch.randn(2, self.r, width, generator=torch.Generator().manual_seed(self.seed)) / self.r**0.5
        for name, base in maps.items():
            replace_module(model, name, Scaled(base, a, b.T, self.start))
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        for name, module in [(n, m) for n, m in model.named_modules() if isinstance(m, Scaled)]:
            add_to_weight(module.base, module.delta())
            replace_module(model, name, module.base)
        return model
