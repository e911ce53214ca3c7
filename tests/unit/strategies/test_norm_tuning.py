"""NormTuning: the norms of every family are found, whatever their class is called, and nothing else is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ftlab.errors import ConfigError
from ftlab.strategies.norm_tuning import NormTuning
from ftlab.testing.models import FAMILIES
from tests.unit.strategies.test_bitfit import classifier, model_of


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_and_nothing_else(family: str, tmp_path: Path) -> None:
    model = model_of(family, tmp_path)
    NormTuning().apply(model, {})
    trained = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    norms = {name for name, m in model.named_modules() if type(m).__name__.endswith("Norm") and any(True for _ in m.parameters())}
    assert trained == norms
    assert len(trained) >= 4


def test_biases_may_stay(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path)
    NormTuning(biases=False).apply(model, heads)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[-1] for name in trained if "LayerNorm" in name.split(".")} == {"weight"}
    assert {"classifier.bias", "bert.pooler.dense.bias"} <= trained


def test_a_model_without_norms_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no norm with a weight; use LoRA instead"):
        NormTuning().apply(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), {})


def test_export_and_merge(tmp_path: Path) -> None:
    model, heads = classifier(tmp_path / "base")
    strategy = NormTuning()
    strategy.apply(model, heads)
    strategy.save(model, tmp_path / "export")
    assert (tmp_path / "export" / "ftlab_adapter.safetensors").is_file()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert strategy.merge(model) is model
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())
