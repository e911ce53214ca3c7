"""QLoRA: low-rank adapters over a base that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from torch import nn

from ftlab.adapters import save_lora
from ftlab.errors import ConfigError, EnvironmentFault
from ftlab.quantised import compute_in, quantised_maps
from ftlab.strategies.base import Placement, Traits, TuningStrategy
from ftlab.strategies.lora_peft import add_lora, check_fields, merge_lora
from ftlab.strategies.peft_plus import with_faster_b

log = logging.getLogger(__name__)

_PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""Precision of the trainer → the type that its linear maps compute in; the others cast the whole module."""
_OUTSIDE_LAYERS = r"(?!(?:.*\.)?\d+\.).*"
"""What transformers leaves alone: a module in no numbered layer, so heads, poolers, projections beside embeddings, lm_head."""


@dataclass(frozen=True, kw_only=True)
class QLoRA(TuningStrategy):
    """Train LoRA adapters over frozen weights of 4 or 8 bits (Dettmers et al. 2023); heads, norms and embeddings keep their type.

    Args:
        bits: 4 packs blocks of 64 weights; 8 packs rows, of inputs too, with no columns apart for outliers (Dettmers et al. 2022).
        quant_type: The sixteen values of 4 bits; nf4 are quantiles of a normal distribution, fp4 floating-point numbers.
        double_quant: Quantise the scales of the 4-bit blocks as well, which takes 4.127 bits per weight instead of 4.5.
        compute_dtype: Type that 4-bit weights are unpacked to and multiplied in; auto is that of trainer.precision, else of the backbone.
        storage_dtype: Type of the tensors that hold packed 4-bit weights; FSDP needs that of the other parameters.
        r: Rank of the added product.
        alpha: Numerator of its scale, alpha / r.
        dropout: Probability of dropping an input of A while training.
        target_modules: all-linear, a regular expression for whole module names, or a list of names such as q_proj.
        layers: Numbers of the layers to adapt; null adapts all.
        rank_pattern: Regular expression for module names → their own r.
        alpha_pattern: Regular expression for module names → their own alpha.
        rslora: Scale by alpha / √r (Kalajdzievski 2023).
        dora: Learn a magnitude per column and adapt the direction (Liu et al. 2024, DoRA).
        init: How A starts; B starts so that the product is zero, because a packed base cannot give anything up.
        lora_plus_ratio: Learning rate of B, and of vectors, over that of A (Hayou et al. 2024, LoRA+); null gives all the same.
    """

    traits = Traits(
        mergeable=True,
        learning_rate=2e-4,
        paper="Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs",
        fails={"bf16_true": "casting the whole module would destroy packed weights, so bf16-true is refused"},
    )

    bits: Literal[4, 8] = 4
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    storage_dtype: Literal["uint8", "float32", "bfloat16", "float16"] = "uint8"
    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    layers: list[int] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "gaussian", "orthogonal"] = "default"
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
        if self.bits == 8 and self.dora:
            raise ConfigError("model.tuning.dora is true with bits 8, whose scales PEFT loses when it measures columns; use bits 4.")

    def load_options(self, placement: Placement) -> dict[str, object]:
        if placement.precision not in _PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {placement.precision}, under which Lightning casts the whole module, packed weights included, past "
                f"the guard of transformers; use {', '.join(_PRECISIONS)}, and model.backbone.dtype for the type of the other weights."
            )
        if importlib.util.find_spec("bitsandbytes") is None:
            raise EnvironmentFault("model.tuning QLoRA needs bitsandbytes, which is not installed; run `pip install 'bitsandbytes>=0.50'`.")
        from transformers import BitsAndBytesConfig

        if placement.device.type == "cpu":
            _say_slow()
        chosen = _PRECISIONS[placement.precision] if self.compute_dtype == "auto" else self.compute_dtype
        config = BitsAndBytesConfig(
            load_in_4bit=self.bits == 4,
            load_in_8bit=self.bits == 8,
            llm_int8_threshold=0.0,  # outliers are looked for in the whole batch, so a token's result would depend on later tokens and rows
            llm_int8_skip_modules=[_OUTSIDE_LAYERS],
            bnb_4bit_compute_dtype=chosen,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_quant_storage=self.storage_dtype,
        )
        return {"quantization_config": config, "device_map": {"": placement.device}}

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        from peft import LoraConfig

        packed = quantised_maps(model)
        for head in heads:
            found = next((name for name in packed if name == head or name.startswith(f"{head}.")), None)
            if found is not None:
                raise ConfigError(f"the fresh head '{head}' was quantised ('{found}'), so it cannot be trained; use LoRA for this model.")
        if self.compute_dtype == "auto":
            compute_in(model, model.dtype)  # type: ignore[arg-type]  # under 32-true, which does not say what the backbone's type is
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            rank_pattern=self.rank_pattern,
            alpha_pattern=self.alpha_pattern,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "default" else self.init,
        )
        add_lora(model, heads, config, self.target_modules, self.layers)
        return model

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        groups = super().param_groups(model, lr, weight_decay)
        return groups if self.lora_plus_ratio is None else with_faster_b(groups, self.lora_plus_ratio)

    def save(self, model: nn.Module, folder: Path) -> None:
        save_lora(model, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return merge_lora(model)


@cache
def _say_slow() -> None:
    log.warning("QLoRA on a CPU is slow: weights are unpacked in every pass; it is meant for trying things out")
