"""Low-rank adaptation, on PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from ftlab.adapters import remember_start, save_lora
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.lora_peft import add_lora, check_fields, merge_lora
from ftlab.strategies.peft_plus import with_faster_b


@dataclass(frozen=True, kw_only=True)
class LoRA(TuningStrategy):
    """Add a trained product of two small matrices to linear maps: W + (alpha / r) · B·A.

    Args:
        r: Rank of the added product.
        alpha: Numerator of its scale, alpha / r.
        dropout: Probability of dropping an input of A while training.
        target_modules: all-linear, a regular expression for whole module names, or a list of names such as q_proj.
        layers: Numbers of the layers to adapt; null adapts all.
        bias: Which biases of the model are trained too; none, all, or lora_only for those of adapted modules.
        rank_pattern: Regular expression for module names → their own r.
        alpha_pattern: Regular expression for module names → their own alpha.
        rslora: Scale by alpha / √r (Kalajdzievski 2023).
        dora: Learn a magnitude per column and adapt the direction (Liu et al. 2024, DoRA).
        init: How A and B start; default and gaussian begin at the base model, pissa and olora split its weights.
        lora_plus_ratio: Learning rate of B, and of vectors, over that of A (Hayou et al. 2024, LoRA+); null gives all the same.
    """

    traits = Traits(mergeable=True, learning_rate=2e-4, paper="Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models")

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    layers: list[int] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    lora_plus_ratio: float | None = None

    def __post_init__(self) -> None:
        check_fields(
            r=self.r,
            alpha=self.alpha,
            dropout=self.dropout,
            target_modules=self.target_modules,
            rank_pattern=self.rank_pattern,
            alpha_pattern=self.alpha_pattern,
            lora_plus_ratio=self.lora_plus_ratio,
        )

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft import LoraConfig

        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            bias=self.bias,
            rank_pattern=self.rank_pattern,
            alpha_pattern=self.alpha_pattern,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "default" else self.init,
        )
        add_lora(model, heads, config, self.target_modules, self.layers)
        if self.init in ("pissa", "olora"):
            remember_start(model)
        return model

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        groups = super().param_groups(model, lr, weight_decay)
        return groups if self.lora_plus_ratio is None else with_faster_b(groups, self.lora_plus_ratio)

    def save(self, model: nn.Module, folder: Path) -> None:
        save_lora(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return merge_lora(model)
