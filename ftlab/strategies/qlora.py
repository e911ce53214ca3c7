"""QLoRA: low-rank adapters over a base that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from torch import nn

from ftlab.errors import ConfigError, EnvironmentFault
from ftlab.quantised import compute_in, quantised_maps
from ftlab.strategies.base import Placement, Traits
from ftlab.strategies.low_rank import LowRank

log = logging.getLogger(__name__)

_PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""Precision of the trainer → the type that its linear maps compute in; the others cast the whole module."""
_OUTSIDE_LAYERS = r"(?!(?:.*\.)?\d+\.).*"
"""What transformers leaves alone: a module in no numbered layer, so heads, poolers, projections beside embeddings, lm_head."""


@dataclass(frozen=True, kw_only=True)
class QLoRA(LowRank):
    """Train LoRA adapters over frozen weights of 4 or 8 bits (Dettmers et al. 2023); heads, norms and embeddings keep their type.

    Args:
        bits: 4 packs blocks of 64 weights; 8 packs rows, of inputs too, with no columns apart for outliers (Dettmers et al. 2022).
        quant_type: The sixteen values of 4 bits; nf4 are quantiles of a normal distribution, fp4 floating-point numbers.
        double_quant: Quantise the scales of the 4-bit blocks as well, which takes 4.127 bits per weight instead of 4.5.
        compute_dtype: Type that 4-bit weights are unpacked to and multiplied in; auto is that of trainer.precision, else of the backbone.
        storage_dtype: Type of the tensors that hold packed 4-bit weights; FSDP needs that of the other parameters.
        init: How A starts; B starts so that the product is zero, because a packed base cannot give anything up.
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
    init: Literal["default", "gaussian", "orthogonal"] = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
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
        packed = quantised_maps(model)
        for head in heads:
            found = next((name for name in packed if name == head or name.startswith(f"{head}.")), None)
            if found is not None:
                raise ConfigError(f"the fresh head '{head}' was quantised ('{found}'), so it cannot be trained; use LoRA for this model.")
        if self.compute_dtype == "auto":
            compute_in(model, model.dtype)  # type: ignore[arg-type]  # under 32-true, which does not say what the backbone's type is
        self.add_to(model, heads, self.init)
        return model


@cache
def _say_slow() -> None:
    log.warning("QLoRA on a CPU is slow: weights are unpacked in every pass; it is meant for trying things out")
