"""A run as LoRA, and the spectrum of what it changed, against NumPy's singular value decomposition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ftlab import Backbone, FinetuneModule, load
from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.lowrank import Change, as_lora, compared, truncated
from ftlab.model_card import Facts
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.testing.models import tiny_model_folder
from tests.unit.exports import BERT, CLASSES, LANGUAGE, LLAMA, grown, ids, logits, trained

DENSE = Full(pattern=r".*(query|dense|c_fc|c_proj|c_attn)\.weight")


def matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("rows", "columns"), [(9, 6), (6, 9), (5, 5)])
@pytest.mark.parametrize("r", [1, 3, 5])
def test_the_error_is_the_tail_of_the_spectrum(rows: int, columns: int, r: int) -> None:
    delta = matrix(rows, columns)
    a, b = truncated(delta, r)
    assert (a.shape, b.shape) == ((r, columns), (rows, r))
    values = np.linalg.svd(delta.numpy(), compute_uv=False)
    assert float((delta - b @ a).norm()) == pytest.approx(float(np.sqrt((values[r:] ** 2).sum())), abs=1e-12)


def test_a_rank_above_the_full_one_is_filled_with_zeros() -> None:
    delta = matrix(4, 3)
    a, b = truncated(delta, 5)
    assert (a.shape, b.shape) == ((5, 3), (4, 5))
    torch.testing.assert_close(b @ a, delta)


def test_energy_and_ranks() -> None:
    values = np.array([3.0, 2.0, 1.0])
    left, _ = np.linalg.qr(matrix(5, 3).numpy())
    change = Change(name="x", delta=torch.from_numpy(left * values), size=2.0)
    assert change.norm == pytest.approx(np.sqrt(14))
    assert change.energy().tolist() == pytest.approx([9 / 14, 13 / 14, 1.0])
    assert [change.rank(share) for share in (0.5, 0.9, 0.93, 0.99)] == [1, 2, 3, 3]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone(name=str(tiny_model_folder("gpt2", tmp_path_factory.mktemp("models") / "gpt2")))


def of(name: str, gpt2: Backbone) -> FinetuneModule:
    return trained(DENSE, gpt2, LANGUAGE) if name == "gpt2" else trained(DENSE, BERT, CLASSES)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_at_full_rank_the_adapter_is_the_run(tmp_path: Path, name: str, gpt2: Backbone) -> None:
    """GPT-2 keeps its weights the other way round."""
    module = of(name, gpt2)
    other, found, others = as_lora(module, 128)
    assert not others
    tokens = ids(BERT) if name == "bert" else ids(BERT) + 20
    torch.testing.assert_close(logits(other.adapted, tokens), logits(module.adapted, tokens), rtol=0, atol=1e-5)
    assert len(found) == sum(p.requires_grad for n, p in module.adapted.named_parameters() if not n.startswith("classifier"))
    parity = export(other, tmp_path / "out", Facts(), [{"input_ids": tokens}])
    assert parity.holds
    assert (tmp_path / "out" / "adapter_config.json").is_file()
    torch.testing.assert_close(logits(load(tmp_path / "out").model, tokens), logits(other.adapted, tokens), rtol=0, atol=1e-6)


def test_the_rank_of_a_lora_run_is_its_own() -> None:
    found, others, heads = compared(trained(LoRA(r=3, target_modules=["query"]), BERT, CLASSES))
    assert {change.rank(1 - 1e-9) for change in found} == {3}
    assert all(change.name.endswith(".query") for change in found)
    assert not others
    assert heads == {"classifier"}


def test_what_an_adapter_has_no_place_for_is_named() -> None:
    _, _, others = as_lora(trained(Full(last_layers=1), BERT, CLASSES), 2)
    assert others
    assert all(name.endswith(("bias", "LayerNorm.weight")) for name in others)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone\.new_tokens added rows"):
        compared(trained(Full(), grown(LLAMA)))
    with pytest.raises(ConfigError, match="changed no linear map"):
        as_lora(trained(Full(pattern=r".*norm.*"), LLAMA), 2)
