"""BitFit: train the biases and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ftlab.errors import ConfigError, suggest
from ftlab.strategies.base import Traits, TuningStrategy


@dataclass(frozen=True, kw_only=True)
class BitFit(TuningStrategy):
    """Train the biases of the backbone, and fresh heads.

    Args:
        modules: Last parts of the names of the modules whose biases are trained, such as query; null takes all.
    """

    traits = Traits(mergeable=True, paper="Ben Zaken, Goldberg and Ravfogel (2022), BitFit: Simple Parameter-efficient Fine-tuning")

    modules: list[str] | None = None

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        biased = {name: m.bias for name, m in model.named_modules() if isinstance(getattr(m, "bias", None), nn.Parameter)}
        parts = {name.rpartition(".")[2] for name in biased}
        for wanted in self.modules or ():
            if not any(f".{name}".endswith(f".{wanted}") for name in biased):
                raise ConfigError(f"model.tuning.modules has '{wanted}', which is no module with a bias; {suggest(wanted, parts)}")
        model.requires_grad_(False)
        for name, bias in biased.items():
            bias.requires_grad_(self.modules is None or any(f".{name}".endswith(f".{wanted}") for wanted in self.modules))
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        return model
