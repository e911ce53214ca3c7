"""Bias-only tuning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ftlab.errors import ConfigError, suggest
from ftlab.native import save_native
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.targets import leaf_names


@dataclass(frozen=True, kw_only=True)
class BitFit(TuningStrategy):
    """Train the biases of the model and its fresh heads (Ben Zaken et al. 2022); the weights stay as they are.

    Args:
        modules: Last parts of the names of the modules whose biases are trained, such as query; null takes every bias.
    """

    traits = Traits(
        mergeable=True,
        learning_rate=1e-3,
        paper="Ben Zaken et al. 2022, BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
    )

    modules: list[str] | None = None

    def __post_init__(self) -> None:
        if self.modules == []:
            raise ConfigError("model.tuning.modules is empty; write null for every bias, or a list of module names such as query.")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        biases = _biases(model, heads)
        if not biases:
            raise ConfigError(
                f"model.tuning is BitFit, but {type(model).__name__} has no bias outside its fresh heads, as most newer decoders; "
                "use NormTuning, LoRA or IA3 instead."
            )
        model.requires_grad_(False)
        for name in _chosen(biases, self.modules):
            biases[name].requires_grad_(True)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        save_native(self, model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return model


def _biases(model: nn.Module, heads: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Module name → its bias, outside the fresh heads."""
    fresh = {id(p) for head in heads.values() for p in head.parameters()}
    named = [(*name.rpartition("."), p) for name, p in model.named_parameters() if id(p) not in fresh]
    return {module: p for module, _, leaf, p in named if leaf == "bias"}


def _chosen(biases: Collection[str], wanted: list[str] | None) -> set[str]:
    if wanted is None:
        return set(biases)
    chosen: set[str] = set()
    for name in wanted:
        hits = {b for b in biases if b == name or b.endswith(f".{name}")}
        if not hits:
            raise ConfigError(f"model.tuning.modules has '{name}', which is no module with a bias; {suggest(name, leaf_names(biases), 5)}")
        chosen |= hits
    return chosen
