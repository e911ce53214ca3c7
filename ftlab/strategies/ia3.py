"""Rescaling of activations by learnt vectors, on PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.errors import ConfigError
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.peft_bridge import inject, merge_bridged, save_bridged
from ftlab.strategies.targets import match_targets

_BESIDE_PEFT = {
    "distilbert": (["k_lin", "v_lin", "ffn.lin2"], ["ffn.lin2"]),
    "electra": (["key", "value", "output.dense"], ["output.dense"]),
    "modernbert": (["Wqkv", "mlp.Wo"], ["mlp.Wo"]),
}
"""Model type → the maps that the paper adapts and those of them that are feed-forward, for families that PEFT does not list."""


@dataclass(frozen=True, kw_only=True)
class IA3(TuningStrategy):
    """Multiply keys, values and the inner activations of the feed-forward layers by learnt vectors (Liu et al. 2022, (IA)³).

    Args:
        target_modules: Maps to rescale, as a list of names, a regular expression or all-linear; null takes what the paper does.
        feedforward_modules: Those of them whose input is rescaled, not their output; null takes what the paper does.
        layers: Numbers of the layers to adapt; null adapts all.
    """

    traits = Traits(
        mergeable=True,
        learning_rate=3e-3,
        paper="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
    )

    target_modules: str | list[str] | None = None
    feedforward_modules: list[str] | None = None
    layers: list[int] | None = None

    def __post_init__(self) -> None:
        if self.target_modules in ([], ""):
            raise ConfigError("model.tuning.target_modules is empty; write null, all-linear, an expression or a list of module names.")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft import IA3Config

        usual, inner = _usual(model)
        wanted = usual if self.target_modules is None else self.target_modules
        if wanted is None:
            raise ConfigError(
                f"model.tuning.target_modules is null, but nobody has said which maps of {_kind(model)} (IA)³ adapts; name them."
            )
        targets = match_targets(model, wanted, self.layers, heads)
        named = (inner or []) if self.feedforward_modules is None else self.feedforward_modules
        forward = [t for t in targets if any(t == name or t.endswith(f".{name}") for name in named)]
        for name in self.feedforward_modules or []:
            if not any(t == name or t.endswith(f".{name}") for t in forward):
                raise ConfigError(f"model.tuning.feedforward_modules has '{name}', which is none of the target_modules; add it there.")
        transposed = all(isinstance(model.get_submodule(t), Conv1D) for t in targets)
        inject(model, heads, IA3Config(target_modules=targets, feedforward_modules=forward, fan_in_fan_out=transposed))
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        save_bridged(self, model, folder, None)

    def merge(self, model: nn.Module) -> nn.Module:
        return merge_bridged(model)


def _kind(model: nn.Module) -> str:
    return str(model.config.model_type)  # type: ignore[union-attr]


def _usual(model: nn.Module) -> tuple[list[str] | None, list[str] | None]:
    """The maps that the paper adapts, and those of them that are feed-forward, by PEFT's tables or ours."""
    from peft.utils.constants import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD,
    )
    from peft.utils.constants import (
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGETS,
    )

    kind = _kind(model)
    return (TARGETS[kind], FEEDFORWARD[kind]) if kind in TARGETS else _BESIDE_PEFT.get(kind, (None, None))
