"""Low-rank adaptation, on PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ftlab.adapters import remember_start
from ftlab.strategies.base import Traits
from ftlab.strategies.low_rank import LowRank


@dataclass(frozen=True, kw_only=True)
class LoRA(LowRank):
    """Add a trained product of two small matrices to linear maps: W + (alpha / r) · B·A.

    Args:
        bias: Which biases of the model are trained too; none, all, or lora_only for those of adapted modules.
        init: How A and B start; default, gaussian and orthogonal begin at the base model, pissa and olora split its weights.
    """

    traits = Traits(mergeable=True, learning_rate=2e-4, paper="Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models")

    bias: Literal["none", "all", "lora_only"] = "none"
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        self.add_to(model, heads, self.init, self.bias)
        if self.init in ("pissa", "olora"):
            remember_start(model)
        return model
