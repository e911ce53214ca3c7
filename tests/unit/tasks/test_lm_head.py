"""The way from hidden states to logits is found, checked against the model, and leaves nothing behind."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ftlab.backbone import Backbone
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.tasks.lm_head import language_head
from ftlab.testing.models import tiny_model_folder
from tests.unit.backbones import LANGUAGE, batch_of, configured, gradients

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 16, "max_position_embeddings": 32, "initializer_range": 0.5,
}  # fmt: skip


def small(family: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **settings))
    return model.eval()


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 8.0}),
    ],
)
def test_scales_and_caps_are_found(family: str, settings: dict[str, object]) -> None:
    model = small(family, **settings)
    head = language_head(model)
    assert head is not None
    ids = torch.randint(0, 40, (2, 7))
    with torch.no_grad():
        hidden = head.body(input_ids=ids).last_hidden_state
        torch.testing.assert_close(head.project(hidden), model(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_is_more_than_a_linear_map_is_left_alone_and_said_once(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    model = small("llama").to(dtype)
    plain = model.forward
    model.forward = lambda *args, **kwargs: _shifted(plain(*args, **kwargs))
    with caplog.at_level(logging.INFO, logger="ftlab"):
        assert language_head(model) is None
        assert language_head(model) is None
    said = [r.getMessage() for r in caplog.records]
    assert said == ["chunked loss: not applicable, the logits of LlamaForCausalLM are more than a linear map of its hidden states"]


def _shifted(outputs: object) -> object:
    logits = outputs.logits  # type: ignore[attr-defined]
    outputs.logits = logits + logits.abs().max() * torch.linspace(0, 0.1, logits.shape[-1], dtype=logits.dtype)  # type: ignore[attr-defined]
    return outputs


def test_a_model_without_a_head_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ftlab"):
        assert language_head(nn.Linear(3, 3)) is None
    assert [r.getMessage() for r in caplog.records] == ["chunked loss: not applicable, Linear has no separate body and output embedding"]


def test_looking_leaves_modes_and_random_numbers_as_they_were(tmp_path: Path) -> None:
    model = configured(Backbone(name=str(tiny_model_folder("gpt2", tmp_path))), LANGUAGE, Full()).adapted
    next(model.children()).eval()
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    language_head(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes


@pytest.mark.parametrize("tuning", [Full(), LoRA(r=2, init="gaussian"), LoRA(r=2, target_modules=["lm_head", "q_proj"])])
def test_the_first_step_under_autocast_has_the_gradients_of_the_second(tuning: Full | LoRA, tmp_path: Path) -> None:
    """Autocast keeps casts that were made without gradients; the search for the head must not leave it any."""
    module = configured(Backbone(name=str(tiny_model_folder("llama", tmp_path))), LANGUAGE, tuning)
    steps = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            steps.append(gradients(module, batch_of(module)))
    assert {n for n, g in steps[0].items() if g is not None} == {n for n, p in module.adapted.named_parameters() if p.requires_grad}
    torch.testing.assert_close(steps[0], steps[1])
