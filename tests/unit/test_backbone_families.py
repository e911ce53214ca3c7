"""Every proven family, under both tasks and the ways to tune it."""

from __future__ import annotations

import warnings

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification

from ftlab.backbone import Backbone
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.tasks.base import Task
from ftlab.tasks.lm_head import language_head
from ftlab.testing.models import DECODERS, FAMILIES, tiny_config
from tests.unit.backbones import CASES, CLASSES, LANGUAGE, NAMES, TEXTS, Models, batch_of, configured, gradients, row_results

TUNINGS = [Full(), Full(last_layers=1), Full(last_layers=0), LoRA(r=2)]
TUNING_NAMES = ["full", "last-layer", "head", "lora"]


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
@pytest.mark.parametrize("tuning", TUNINGS, ids=TUNING_NAMES)
def test_trainable_parameters_get_a_gradient_and_no_others(models: Models, family: str, task: Task, tuning: TuningStrategy) -> None:
    module = configured(Backbone(name=str(models.folder(family))), task, tuning)
    found = gradients(module, batch_of(module))
    trainable = {name for name, p in module.adapted.named_parameters() if p.requires_grad}
    assert trainable
    assert trainable == {name for name, g in found.items() if g is not None}
    assert all(g.isfinite().all() for g in found.values() if g is not None)
    assert any(g.any() for g in found.values() if g is not None)
    assert trainable <= tuning.owned(module.adapted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", TUNINGS, ids=TUNING_NAMES)
def test_a_fresh_head_is_trained_and_owned(models: Models, family: str, tuning: TuningStrategy) -> None:
    folder = models.folder(family)
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = set(file.keys())
    plain = AutoModelForSequenceClassification.from_config(tiny_config(family))
    fresh = {name for name, _ in plain.named_parameters()} - stored
    module = configured(Backbone(name=str(folder)), CLASSES, tuning)
    trainable = {name for name, p in module.adapted.named_parameters() if p.requires_grad}
    assert fresh
    assert fresh <= trainable
    assert fresh <= tuning.owned(module.adapted)


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
@pytest.mark.parametrize("pad_token", ["auto", "</s>"])
def test_a_row_depends_on_itself_alone(models: Models, family: str, task: Task, pad_token: str) -> None:
    module = configured(Backbone(name=str(models.folder(family)), pad_token=pad_token), task, Full())
    together = row_results(module, batch_of(module))
    padded = row_results(module, batch_of(module, padding=5))
    alone = [row_results(module, batch_of(module, [text]))[0] for text in TEXTS]
    other = row_results(module, batch_of(module, ["quite another neighbour", *TEXTS[1:]]))
    torch.testing.assert_close(padded, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(other[1:], together[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("tuning", TUNINGS, ids=TUNING_NAMES)
def test_decoders_take_the_chunked_loss(models: Models, family: str, tuning: TuningStrategy) -> None:
    module = configured(Backbone(name=str(models.folder(family))), LANGUAGE, tuning)
    assert language_head(module.adapted) is not None


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
def test_recomputed_activations_give_the_same_gradients(models: Models, family: str, task: Task) -> None:
    """With a frozen base, reentrant checkpointing would leave the adapters without gradients."""
    found = []
    for recompute in (False, True):
        torch.manual_seed(1)  # of the fresh head and the adapters
        backbone = Backbone(name=str(models.folder(family)), activation_checkpointing=recompute)
        module = configured(backbone, task, LoRA(r=2, dropout=0.1, init="gaussian"))
        assert recompute is any(getattr(m, "gradient_checkpointing", False) for m in module.adapted.modules())
        found.append({name: g for name, g in gradients(module, batch_of(module)).items() if g is not None})
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() == {name for name, p in module.adapted.named_parameters() if p.requires_grad}
    torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-5)  # the order of additions differs


def test_recomputing_does_not_send_gradients_through_a_frozen_stack(models: Models) -> None:
    module = configured(Backbone(name=str(models.folder("llama")), activation_checkpointing=True), CLASSES, Full(last_layers=0))
    seen: list[bool] = []
    layers = module.adapted.get_submodule("model.layers")
    layers.get_submodule("1").register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    gradients(module, batch_of(module))
    assert seen == [False]


@pytest.mark.parametrize(("family", "task"), CASES, ids=NAMES)
def test_merged_adapters_compute_the_same(models: Models, family: str, task: Task) -> None:
    """GPT-2 among them, whose `Conv1D` holds its matrix the other way round."""
    tuning = LoRA(r=2)
    module = configured(Backbone(name=str(models.folder(family))), task, tuning)
    before = row_results(module, batch_of(module))
    for name, parameter in module.adapted.named_parameters():
        if name.endswith(".lora_B.default.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    adapted = row_results(module, batch_of(module))
    module.model = tuning.merge(module.adapted)
    assert not [n for n, _ in module.adapted.named_parameters() if ".lora_" in n]
    torch.testing.assert_close(row_results(module, batch_of(module)), adapted, rtol=1e-4, atol=1e-5)
    assert adapted != before


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_has_nothing_to_warn_of(models: Models, family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configured(Backbone(name=str(models.folder(family))), CLASSES, LoRA(r=2))
