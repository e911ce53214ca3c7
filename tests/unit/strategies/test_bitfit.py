"""BitFit: biases and heads are trained, nothing else is, and models without biases are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from ftlab.errors import ConfigError
from ftlab.native import fill
from ftlab.strategies.bitfit import BitFit
from ftlab.testing.models import DECODERS, FAMILIES, tiny_model_folder

WITHOUT = {"gemma", "llama", "mistral", "qwen3"}


def model_of(family: str, folder: Path) -> nn.Module:
    auto = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    model: nn.Module = auto.from_pretrained(tiny_model_folder(family, folder))
    return model


def classifier(folder: Path) -> tuple[nn.Module, dict[str, nn.Module]]:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder("bert", folder))
    return model, {"classifier": model.get_submodule("classifier"), "bert.pooler": model.get_submodule("bert.pooler")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_bias_and_nothing_else(family: str, tmp_path: Path) -> None:
    model = model_of(family, tmp_path)
    if family in WITHOUT:
        with pytest.raises(ConfigError, match="has no bias outside its fresh heads"):
            BitFit().apply(model, {})
        return
    BitFit().apply(model, {})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.split(".")[-1] == "bias"}
    assert trained


def test_heads_are_trained_whole_and_modules_chosen(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path)
    strategy = BitFit(modules=["query", "LayerNorm"])
    strategy.apply(model, heads)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    fresh = {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert fresh <= trained
    assert {name.split(".")[-2] for name in trained - fresh} == {"query", "LayerNorm"}
    assert strategy.owned(model) == trained


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path)
    with pytest.raises(ConfigError, match="has 'qury', which is no module with a bias; did you mean query"):
        BitFit(modules=["qury"]).apply(model, heads)
    with pytest.raises(ConfigError, match="model.tuning.modules is empty"):
        BitFit(modules=[])


def test_saved_and_opened_again(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path / "base")
    strategy = BitFit()
    strategy.apply(model, heads)
    for p in model.parameters():
        if p.requires_grad:
            nn.init.normal_(p)
    strategy.save(model, tmp_path / "export")
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["ftlab_adapter.json", "ftlab_adapter.safetensors"]
    other, heads = classifier(tmp_path / "base")
    strategy.apply(other, heads)
    fill(other, strategy.owned(other), tmp_path / "export")
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in model.state_dict().items())
    assert strategy.merge(other) is other
