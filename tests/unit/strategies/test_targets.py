"""What a configuration says finds modules, or is an error that says what there is."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from ftlab.errors import ConfigError
from ftlab.strategies.targets import layer_list, match_targets
from ftlab.testing.models import DECODERS, FAMILIES, tiny_config

ATTENTION = [f"model.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "qkvo"]
FEED_FORWARD = [f"model.layers.{i}.mlp.{x}_proj" for i in (0, 1) for x in ("gate", "up", "down")]


@cache
def model_of(family: str, auto: type = AutoModelForCausalLM, tied: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = auto.from_config(tiny_config(family, {"tie_word_embeddings": tied}))  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(
    ("wanted", "layers", "expected"),
    [
        ("all-linear", None, ATTENTION + FEED_FORWARD),
        ("all-linear", [1], [n for n in ATTENTION + FEED_FORWARD if ".1." in n]),
        (["q_proj", "v_proj"], None, [n for n in ATTENTION if n[-6:] in ("q_proj", "v_proj")]),
        (["self_attn.q_proj"], [0], ["model.layers.0.self_attn.q_proj"]),
        (["model.layers.1.mlp.up_proj"], None, ["model.layers.1.mlp.up_proj"]),
        (["lm_head"], None, ["lm_head"]),
        (r".*\.0\..*[qk]_proj", None, ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]),
        (["q_proj", "q_proj", "self_attn.q_proj"], [0], ["model.layers.0.self_attn.q_proj"]),
    ],
)
def test_names_expressions_and_layers(wanted: str | list[str], layers: list[int] | None, expected: list[str]) -> None:
    found = match_targets(model_of("llama"), wanted, layers, {})
    assert sorted(found) == sorted(expected)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("wanted", "layers", "message"),
    [
        (["q_proj", "vproj"], None, "t has 'vproj', which matches no linear module; did you mean v_proj"),
        (["roj"], None, "t has 'roj', which matches no linear module;"),
        (["input_layernorm"], None, "t has 'input_layernorm', which matches no linear module;"),
        ("q_pro", None, "t 'q_pro' matches no linear module; the model has down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj,"),
        ("(", None, "t '(' is not a regular expression: "),
        ("all-linear", [2], "model.tuning.layers has 2, but model.layers has layers 0 to 1."),
        ("all-linear", [-1], "model.tuning.layers has -1, but model.layers has layers 0 to 1."),
        (["lm_head"], [0], "t ['lm_head'] leaves no linear module to adapt, layers being [0]; choose other modules or layers."),
        ("all-linear", [], "t 'all-linear' leaves no linear module to adapt, layers being []; choose other modules or layers."),
    ],
)
def test_what_matches_nothing_is_an_error(wanted: str | list[str], layers: list[int] | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        match_targets(model_of("llama"), wanted, layers, {}, "t")
    assert str(caught.value).startswith(message)


def test_fresh_heads_are_never_a_target() -> None:
    model = model_of("roberta", AutoModelForSequenceClassification)
    head = {"classifier": model.get_submodule("classifier")}
    assert not [n for n in match_targets(model, "all-linear", None, head) if n.startswith("classifier")]
    with pytest.raises(ConfigError, match="out_proj"):
        match_targets(model, ["out_proj"], None, head)


@pytest.mark.parametrize("family", DECODERS)
def test_a_tied_output_embedding_cannot_be_a_target(family: str) -> None:
    with pytest.raises(ConfigError) as caught:
        match_targets(model_of(family, tied=True), ["lm_head"], None, {}, "t")
    assert str(caught.value) == (
        "t means 'lm_head', which shares its weight with the input embedding, so an update could not be merged; leave it out."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_leaves_out_the_output_embedding(family: str) -> None:
    model = model_of(family, AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM, tied=True)
    found = match_targets(model, "all-linear", None, {})
    output = model.get_output_embeddings()  # type: ignore[operator]
    assert isinstance(output, nn.Linear)
    assert output not in [model.get_submodule(n) for n in found]
    assert len(found) >= 8  # four maps in each of two layers, at least


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stack_of_layers(family: str) -> None:
    assert len(layer_list(model_of(family, AutoModelForSequenceClassification))[1]) == 2


def test_a_list_of_experts_is_not_the_stack() -> None:
    layers = nn.ModuleList(nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(8))}) for _ in range(3))
    assert layer_list(nn.ModuleDict({"layers": layers})) == ("layers", layers)


def test_a_model_without_layers() -> None:
    with pytest.raises(ConfigError, match="Linear has no list of layers; choose its parameters by pattern instead."):
        layer_list(nn.Linear(2, 2))
