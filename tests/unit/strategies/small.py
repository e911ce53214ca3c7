"""Small models in memory, of families that `ftlab.testing` has not, among others."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
    "vocab_size": 300,
}  # fmt: skip


def small(family: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    auto = AutoModelForMaskedLM if family == "albert" else AutoModelForCausalLM
    model: nn.Module = auto.from_config(AutoConfig.for_model(family, **{**SMALL, **settings}))  # type: ignore[no-untyped-call]
    return model.eval()
