"""What LoRA and QLoRA have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from ftlab.adapters import PeftDiffersError, save_lora
from ftlab.errors import ConfigError
from ftlab.native import save_native
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.lora_peft import add_lora, merge_lora
from ftlab.strategies.peft_plus import with_faster_b

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LowRank(TuningStrategy):
    """A trained product of two small matrices beside linear maps: W + (alpha / r) · B·A.

    Args:
        r: Rank of the added product.
        alpha: Numerator of its scale, alpha / r.
        dropout: Probability of dropping an input of A while training.
        target_modules: all-linear, a regular expression for whole module names, or a list of names such as q_proj.
        layers: Numbers of the layers to adapt; null adapts all.
        rank_pattern: Regular expression for module names → their own r.
        alpha_pattern: Regular expression for module names → their own alpha.
        rslora: Scale by alpha / √r (Kalajdzievski 2023).
        dora: Learn a magnitude per column and adapt the direction (Liu et al. 2024, DoRA).
        lora_plus_ratio: Learning rate of B, and of vectors, over that of A (Hayou et al. 2024, LoRA+); null gives all the same.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    layers: list[int] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    lora_plus_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("r", self.r), *((f"rank_pattern.{k}", v) for k, v in self.rank_pattern.items())):
            if value < 1:
                raise ConfigError(f"model.tuning.{name} is {value}; a rank is a whole number of at least 1.")
        for name, size in (("alpha", self.alpha), *((f"alpha_pattern.{k}", v) for k, v in self.alpha_pattern.items())):
            if not size > 0:
                raise ConfigError(f"model.tuning.{name} is {size:g}; it must be above 0, or the adapter has no effect and no gradient.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.tuning.dropout is {self.dropout:g}; it is a probability, at least 0 and below 1.")
        if not self.target_modules:
            raise ConfigError("model.tuning.target_modules is empty; write all-linear, an expression or a list of module names.")
        if self.lora_plus_ratio is not None and not 1 <= self.lora_plus_ratio < float("inf"):
            raise ConfigError(f"model.tuning.lora_plus_ratio is {self.lora_plus_ratio:g}; it is a number of at least 1, usually 16.")

    def add_to(
        self, model: nn.Module, heads: Mapping[str, nn.Module], init: str, bias: Literal["none", "all", "lora_only"] = "none"
    ) -> None:
        """Freeze `model`, put the adapters into it, and train them and the heads.

        Args:
            model: The loaded backbone.
            heads: Name → fresh module, trained whole.
            init: How A and B start, in PEFT's words; default is its True.
            bias: Which biases are trained too.
        """
        from peft import LoraConfig

        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            bias=bias,
            rank_pattern=self.rank_pattern,
            alpha_pattern=self.alpha_pattern,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if init == "default" else init,
        )
        add_lora(model, heads, config, self.target_modules, self.layers)

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        groups = super().param_groups(model, lr, weight_decay)
        return groups if self.lora_plus_ratio is None else with_faster_b(groups, self.lora_plus_ratio)

    def save(self, model: nn.Module, folder: Path) -> None:
        try:
            save_lora(model, folder)
        except PeftDiffersError as error:
            log.warning("the export is in ftlab's own format, which plain PEFT does not open: %s", error)
            save_native(self, model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return merge_lora(model)
