"""Attention and MLP are found in every family, and layers of another form are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from ftlab.errors import ConfigError
from ftlab.strategies.sublayers import halves
from ftlab.testing.models import DECODERS, FAMILIES, tiny_config
from tests.reference.blocks import WIDE, WIDTH, Block, Tiny
from tests.unit.strategies.small import small

PLACES = {
    "gemma": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "llama": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "mistral": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "opt": ("self_attn.out_proj", "fc1", "fc2"),
    "qwen2": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "qwen3": ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
    "bert": ("attention.output.dense", "intermediate.dense", "output.dense"),
    "deberta-v2": ("attention.output.dense", "intermediate.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn.lin1", "ffn.lin2"),
    "electra": ("attention.output.dense", "intermediate.dense", "output.dense"),
    "modernbert": ("attn.Wo", "mlp.Wi", "mlp.Wo"),
    "roberta": ("attention.output.dense", "intermediate.dense", "output.dense"),
    "albert": ("albert_layers.0.attention.dense", "albert_layers.0.ffn", "albert_layers.0.ffn_output"),
    "bloom": ("self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "falcon": ("self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),  # both halves read one tensor
    "gptj": ("attn.out_proj", "mlp.fc_in", "mlp.fc_out"),
    "phi": ("self_attn.dense", "mlp.fc1", "mlp.fc2"),
}


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "bloom", "falcon", "gptj", "phi"])
def test_where_the_halves_are(family: str) -> None:
    special = {"albert": {"embedding_size": 16}, "bloom": {"n_head": 4}, "gptj": {"rotary_dim": 4, "n_head": 4, "bos_token_id": 1}}
    if family in FAMILIES:
        auto = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
        model: nn.Module = auto.from_config(tiny_config(family))  # type: ignore[no-untyped-call]
    else:
        model = small(family, **{"eos_token_id": 2, **special.get(family, {})})
    found = halves(model, None)
    attention, first, last = PLACES[family]
    names = {module: name for name, module in model.named_modules()}
    assert len(found) == (1 if family == "albert" else 2)
    for number, (one, other) in enumerate(found):
        layer = one.name.removesuffix(f".{attention}")
        assert layer.endswith(f".{number}")
        assert (names[one.first], names[one.last]) == (one.name, one.name)
        assert (names[other.first], names[other.last], other.name) == (f"{layer}.{first}", f"{layer}.{last}", f"{layer}.{last}")
    assert not any(m._forward_hooks for m in model.modules())


class TwoOutputs(Block):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(WIDTH, WIDTH)

    def attention(self, x: Tensor) -> Tensor:
        mixed = self.q(x) * self.k(x) + self.v(x)
        return self.o(mixed) + self.other(mixed)  # type: ignore[no-any-return]


class ThreeMaps(Block):
    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(WIDE, WIDE)

    def mlp(self, x: Tensor) -> Tensor:
        return self.down(self.middle(self.up(x)))  # type: ignore[no-any-return]


class Experts(Block):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.ones(2, WIDTH, WIDTH))

    def mlp(self, x: Tensor) -> Tensor:
        return super().mlp(x) + x @ self.experts.sum(0)


class Unused(Block):
    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Linear(WIDTH, WIDTH)


class Listed(Block):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Identity(), nn.Identity()])


@pytest.mark.parametrize("kind", [Block, TwoOutputs, ThreeMaps, Experts, Unused, Listed])
def test_layers_that_are_not_understood(kind: type[Block]) -> None:
    model = Tiny()
    model.layers[1] = kind()
    if kind is Block:
        assert [half.name for pair in halves(model, None) for half in pair] == [
            "layers.0.o",
            "layers.0.down",
            "layers.1.o",
            "layers.1.down",
        ]
        return
    with pytest.raises(ConfigError, match=r"attention and MLP of Tiny's layers\.1 cannot be told apart"):
        halves(model, None)
    assert len(halves(model, [0])) == 1
