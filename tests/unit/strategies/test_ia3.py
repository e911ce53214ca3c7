"""(IA)³: what it adapts, what it refuses, and fresh heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlab.errors import ConfigError
from ftlab.strategies.ia3 import IA3
from tests.unit.strategies.test_bitfit import classifier
from tests.unit.strategies.test_lora import llama


def adapted(model: Any) -> set[str]:
    return {name.split(".")[-1] for name, m in model.named_modules() if hasattr(m, "ia3_l")}


def test_the_papers_maps_are_the_default_and_layers_can_be_chosen() -> None:
    model = IA3(layers=[1]).apply(llama(), {})
    assert adapted(model) == {"k_proj", "v_proj", "down_proj"}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in trained} == {"1"}
    assert {name.split(".")[-2] for name in trained} == {"ia3_l"}


def test_feedforward_maps_are_rescaled_before_the_product() -> None:
    model: Any = IA3(target_modules=["up_proj", "q_proj"], feedforward_modules=["up_proj"]).apply(llama(), {})
    layer = model.model.layers[0]
    assert layer.mlp.up_proj.is_feedforward
    assert not layer.self_attn.q_proj.is_feedforward


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"target_modules": []}, "model.tuning.target_modules is empty"),
        ({"target_modules": ["k_prjo"]}, "target_modules has 'k_prjo', which matches no linear module; did you mean k_proj"),
        ({"feedforward_modules": ["up_proj"]}, "feedforward_modules has 'up_proj', which is none of the target_modules"),
    ],
)
def test_wrong_names_are_refused(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        IA3(**fields).apply(llama(), {})
    assert part in str(error.value)


def test_a_family_that_nobody_has_described_is_refused() -> None:
    model: Any = llama()
    model.config.model_type = "unheard-of"
    with pytest.raises(ConfigError, match="nobody has said which maps of unheard-of"):
        IA3().apply(model, {})
    assert adapted(IA3(target_modules="all-linear").apply(model, {})) >= {"q_proj", "up_proj"}


def test_fresh_heads_are_trained_and_saved(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path / "base")
    strategy = IA3(target_modules=["key", "value"], feedforward_modules=[])
    strategy.apply(model, heads)
    assert all(p.requires_grad for head in heads.values() for p in head.parameters())
    strategy.save(model, tmp_path / "export")
    config = json.loads((tmp_path / "export" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("IA3", "SEQ_CLS")
    assert sorted(config["modules_to_save"]) == ["bert.pooler.dense", "classifier"]


def test_a_head_is_no_target(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path)
    with pytest.raises(ConfigError, match="matches no linear module"):
        IA3(target_modules=["classifier"]).apply(model, heads)


def test_vectors_are_float32_over_a_bfloat16_base() -> None:
    model = IA3().apply(llama().to(torch.bfloat16), {})
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    merged = IA3().merge(model)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
