"""LoRA: what it refuses, what it trains, and that merging gives the same model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ftlab.backbone import Backbone
from ftlab.errors import ConfigError
from ftlab.strategies.lora import LoRA

IDS = torch.tensor([[1, 5, 9, 40, 7, 3]])


def llama() -> nn.Module:
    return Backbone(name="ftlab/tiny-llama").load_model("AutoModelForCausalLM", {}, {})[0]


def logits(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS).logits
    return out


def randomised(model: nn.Module) -> nn.Module:
    """B starts at zero; random values make the adapter count."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name.split("."):
            nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "model.tuning.r is 0; a rank is a whole number of at least 1."),
        ({"rank_pattern": {"q_proj": 0}}, "model.tuning.rank_pattern.q_proj is 0; a rank is a whole number of at least 1."),
        ({"alpha": 0.0}, "model.tuning.alpha is 0; it must be above 0, or the adapter has no effect and no gradient."),
        ({"alpha": float("nan")}, "model.tuning.alpha is nan; it must be above 0, or the adapter has no effect and no gradient."),
        ({"dropout": 1.0}, "model.tuning.dropout is 1; it is a probability, at least 0 and below 1."),
        ({"target_modules": []}, "model.tuning.target_modules is empty; write all-linear, an expression or a list of module names."),
    ],
)
def test_bad_fields(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LoRA(**fields)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"target_modules": ["q_proj", "v_prj"]}, "target_modules has 'v_prj', which matches no linear module; did you mean v_proj"),
        ({"target_modules": ["norm"]}, "model.tuning.target_modules has 'norm', which matches no linear module"),
        ({"target_modules": r".*\.nothing"}, r"model.tuning.target_modules '.*\.nothing' matches no linear module"),
        ({"layers": [99]}, "model.tuning.layers has 99, but"),
        ({"rank_pattern": {"k_prjo": 4}}, "model.tuning.rank_pattern has 'k_prjo', which matches no target"),
    ],
)
def test_unmatched_names(fields: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError) as error:
        LoRA(**fields).apply(llama(), {})  # type: ignore[arg-type]
    assert part in str(error.value)


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "pissa", "olora"])
def test_starts_at_the_base_model(init: str) -> None:
    model = llama()
    before = logits(model)
    after = logits(LoRA(init=init).apply(model, {}))  # type: ignore[arg-type]
    assert torch.allclose(before, after, atol=1e-4)


def test_only_the_adapter_is_trained_and_owned() -> None:
    strategy = LoRA(target_modules=["q_proj"], layers=[0, 1])
    model = strategy.apply(llama(), {})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {f"model.layers.{i}.self_attn.q_proj.lora_{m}.default.weight" for i in (0, 1) for m in "AB"}
    assert trained == expected
    assert strategy.owned(model) == expected


def test_fresh_heads_are_trained() -> None:
    head = nn.Linear(2, 2)
    model = llama()
    model.add_module("score", head)
    LoRA().apply(model, {"score": head})
    assert head.weight.requires_grad
    assert head.bias.requires_grad


def test_all_linear_leaves_the_output_embedding() -> None:
    model = LoRA().apply(llama(), {})
    adapted = {name.rpartition(".")[2] for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3.0}}


@pytest.mark.parametrize("fields", [{}, {"dora": True}, {"rslora": True}, PATTERNS])
def test_merged_is_unmerged(fields: dict[str, object]) -> None:
    strategy = LoRA(**fields)  # type: ignore[arg-type]
    model = randomised(strategy.apply(llama(), {}))
    adapted = logits(model)
    merged = strategy.merge(model)
    assert not any(hasattr(m, "lora_A") for m in merged.modules())
    assert torch.allclose(adapted, logits(merged), atol=1e-4)
    assert not torch.allclose(adapted, logits(llama()), atol=1e-2)
