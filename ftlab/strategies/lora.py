"""Low-rank adaptation, on PEFT."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.adapters import ADAPTER, remember_start, save_lora
from ftlab.errors import ConfigError, suggest
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.targets import compiled, match_targets

log = logging.getLogger(__name__)


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

    def __post_init__(self) -> None:
        for name, value in (("r", self.r), *((f"rank_pattern.{k}", v) for k, v in self.rank_pattern.items())):
            if value < 1:
                raise ConfigError(f"model.tuning.{name} is {value}; a rank is a whole number of at least 1.")
        for name, size in (("alpha", self.alpha), *((f"alpha_pattern.{k}", v) for k, v in self.alpha_pattern.items())):
            if not size > 0:
                raise ConfigError(f"model.tuning.{name} is {size:g}; it must be above 0, or the adapter has no effect and no gradient.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.tuning.dropout is {self.dropout:g}; it is a probability, at least 0 and below 1.")
        if self.target_modules == [] or self.target_modules == "":
            raise ConfigError("model.tuning.target_modules is empty; write all-linear, an expression or a list of module names.")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.functional import cast_adapter_dtype

        from ftlab.strategies.lora_linear import use_fused

        targets = match_targets(model, self.target_modules, self.layers, heads)
        self._check(model, targets)
        model.requires_grad_(False)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            bias=self.bias,
            rank_pattern=self.rank_pattern,
            alpha_pattern=self.alpha_pattern,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "default" else self.init,
            fan_in_fan_out=all(isinstance(model.get_submodule(t), Conv1D) for t in targets),
        )
        use_fused(config, [(name, model.get_submodule(name)) for name in targets])
        inject_adapter_in_model(config, model, ADAPTER)
        cast_adapter_dtype(model, ADAPTER)  # injection takes the base's dtype, in which an optimiser's small steps round to nothing
        if self.init in ("pissa", "olora"):
            remember_start(model)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def _check(self, model: nn.Module, targets: list[str]) -> None:
        for key, patterns in (("rank_pattern", self.rank_pattern), ("alpha_pattern", self.alpha_pattern)):
            for pattern in patterns:
                expression = compiled(rf"(.*\.)?({pattern})", f"model.tuning.{key}")
                if not any(expression.fullmatch(t) for t in targets):
                    raise ConfigError(f"model.tuning.{key} has '{pattern}', which matches no target; {suggest(pattern, targets, 5)}")
        for name in targets:
            smallest = min(model.get_parameter(f"{name}.weight").shape)
            if self.r > smallest:
                log.warning("model.tuning.r is %d, above the %d of %s: a full update would be smaller", self.r, smallest, name)
                break

    def save(self, model: nn.Module, folder: Path) -> None:
        save_lora(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        from peft.tuners.lora import LoraLayer

        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                base = module.get_base_layer()
                dtype = base.weight.dtype
                base.float()  # so that the sum is rounded once
                module.merge(safe_merge=True)
                base.to(dtype)
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, base)
        return model
