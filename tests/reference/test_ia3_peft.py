"""(IA)³ against PEFT driven by hand: logits, gradients, five steps and the folder, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from ftlab.adapter_check import open_adapter
from ftlab.adapters import without_notice
from ftlab.strategies.ia3 import IA3
from ftlab.testing.models import DECODERS, FAMILIES, tiny_model_folder
from tests.reference.test_lora_peft import distance

IDS = torch.tensor([[0, 15, 19, 40, 7, 13], [0, 18, 18, 12, 90, 20]])
USUAL = ("bert", "gpt2", "llama", "modernbert")
NAMED = {  # the maps of families that PEFT does not list
    "distilbert": (["k_lin", "v_lin", "ffn.lin2"], ["ffn.lin2"]),
    "electra": (["key", "value", "output.dense"], ["output.dense"]),
    "modernbert": (["Wqkv", "mlp.Wo"], ["mlp.Wo"]),
}


def base(family: str, folder: Path) -> Any:
    auto = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    return auto.from_pretrained(tiny_model_folder(family, folder / "base")).eval()


def spread(model: nn.Module) -> list[nn.Parameter]:
    """Every vector starts at one, where swapped vectors would not show."""
    torch.manual_seed(1)
    vectors = [p for p in model.parameters() if p.requires_grad]
    for vector in vectors:
        nn.init.normal_(vector, mean=1.0, std=0.2)
    return vectors


def five_steps(model: Any, vectors: list[nn.Parameter]) -> tuple[dict[str, Tensor], list[float]]:
    optimizer, first, losses = torch.optim.AdamW(vectors, lr=1e-2), dict[str, Tensor](), []
    for _ in range(5):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        first = first or {str(i): p.grad.clone() for i, p in enumerate(vectors) if p.grad is not None}
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert len(first) == len(vectors)
    return first, losses


@pytest.mark.parametrize("family", [*USUAL, *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f not in USUAL)])
def test_same_as_peft(family: str, tmp_path: Path) -> None:
    strategy = IA3()
    mine = strategy.apply(base(family, tmp_path), {})
    with torch.no_grad():
        assert torch.equal(mine(input_ids=IDS).logits, base(family, tmp_path)(input_ids=IDS).logits)
    names, inner = NAMED.get(family, (None, None))
    conv = family == "gpt2"
    theirs = get_peft_model(base(family, tmp_path), IA3Config(target_modules=names, feedforward_modules=inner, fan_in_fan_out=conv))
    ours, other = spread(mine), spread(theirs)
    assert [p.shape for p in ours] == [p.shape for p in other]
    (gradients, losses), (expected, known) = five_steps(mine, ours), five_steps(theirs, other)
    assert distance(gradients, expected) < 1e-6
    assert losses == pytest.approx(known, rel=1e-6)
    strategy.save(mine, tmp_path / "export")
    with torch.no_grad(), without_notice():
        after = mine(input_ids=IDS).logits
        for opened in (
            PeftModel.from_pretrained(base(family, tmp_path), tmp_path / "export"),
            open_adapter(base(family, tmp_path), tmp_path / "export"),
        ):
            torch.testing.assert_close(opened(input_ids=IDS).logits, after, atol=1e-5, rtol=1e-5)
        merged: Any = strategy.merge(mine)
        torch.testing.assert_close(merged(input_ids=IDS).logits, after, atol=1e-4, rtol=1e-4)
    assert merged.state_dict().keys() == base(family, tmp_path).state_dict().keys()
