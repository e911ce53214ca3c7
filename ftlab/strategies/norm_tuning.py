"""Tuning of the normalisation layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ftlab.errors import ConfigError
from ftlab.native import save_native
from ftlab.strategies.base import Traits, TuningStrategy


@dataclass(frozen=True, kw_only=True)
class NormTuning(TuningStrategy):
    """Train weights and biases of the LayerNorm and RMSNorm layers and the fresh heads (Zhao et al. 2024).

    Args:
        biases: Whether the biases of the norms are trained too, where there are any.
    """

    traits = Traits(
        mergeable=True,
        learning_rate=1e-3,
        paper="Zhao et al. 2024, Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
    )

    biases: bool = True

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        norms = [module for module in model.modules() if _is_norm(module)]
        if not norms:
            raise ConfigError(f"model.tuning is NormTuning, but {type(model).__name__} has no norm with a weight; use LoRA instead.")
        model.requires_grad_(False)
        for module in norms:
            module.requires_grad_(True)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.requires_grad_(self.biases)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        save_native(self, model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return model


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm with a weight: RMSNorm is another class in every family, but none holds more than two vectors."""
    own = dict(module.named_parameters())
    return (
        "weight" in own and own.keys() <= {"weight", "bias"} and all(p.ndim == 1 for p in own.values()) and not isinstance(module, nn.PReLU)
    )
