"""LoRA against PEFT driven by hand: logits, gradients and five steps."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ftlab.strategies.lora import LoRA
from tests.reference.division import tiny_llama

IDS = torch.tensor([[1, 5, 9, 40, 7, 3], [1, 8, 8, 12, 90, 2]])
ALL = {"lora_alpha": 16, "target_modules": "all-linear"}


def base(dtype: torch.dtype) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(tiny_llama(), dtype=dtype)
    return model.eval()


def by_peft(config: LoraConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return spread(get_peft_model(base(dtype), config))


def by_ftlab(strategy: LoRA, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return spread(strategy.apply(base(dtype), {}))


def spread(model: nn.Module) -> nn.Module:
    """B starts at zero, and then A has no gradient; random values make every tensor count."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name.split("."):
            nn.init.normal_(parameter, std=0.05)
    return model


def trainables(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(1)  # of dropout
    model(input_ids=IDS, labels=IDS).loss.backward()
    found = {name: p.grad for name, p in trainables(model).items() if p.grad is not None}
    model.zero_grad()
    assert len(found) == len(trainables(model))
    return found


def distance(some: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Relative difference of all tensors together."""
    off, whole = (torch.cat([t.double().flatten() for t in ts]) for ts in ([some[n].double() - other[n] for n in other], other.values()))
    return float(off.norm() / whole.norm())


def five_steps(model: nn.Module) -> list[float]:
    torch.manual_seed(2)
    optimizer = torch.optim.AdamW(trainables(model).values(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (LoRA(r=4, alpha=8, target_modules=["q_proj", "v_proj"]), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
        (LoRA(r=4), LoraConfig(r=4, **ALL)),
        (LoRA(r=4, dropout=0.3), LoraConfig(r=4, lora_dropout=0.3, **ALL)),
        (LoRA(r=4, rslora=True, dora=True), LoraConfig(r=4, use_rslora=True, use_dora=True, **ALL)),
    ],
    ids=["two targets", "all-linear", "dropout", "dora"],
)
def test_same_as_peft(ours: LoRA, theirs: LoraConfig) -> None:
    mine, peft = by_ftlab(ours).train(), by_peft(theirs).train()
    assert trainables(mine).keys() == trainables(peft).keys()
    for name, parameter in trainables(peft).items():
        assert torch.equal(trainables(mine)[name], parameter), name
    assert distance(gradients(mine), gradients(peft)) < 1e-6
    torch.testing.assert_close(five_steps(mine), five_steps(peft), rtol=1e-6, atol=0)
    with torch.no_grad():
        some, other = (model.eval()(input_ids=IDS).logits for model in (mine, peft))
    assert distance({"logits": some}, {"logits": other}) < 1e-5  # the five steps' own rounding is in it


def test_bfloat16_base_computes_as_well_as_peft_in_bfloat16() -> None:
    """All are held against the same weights computed in float32 throughout; PEFT's adapters are rounded to bfloat16 for it."""
    mine, peft = by_ftlab(LoRA(r=4), torch.bfloat16), by_peft(LoraConfig(r=4, **ALL), torch.bfloat16)
    exact = by_peft(LoraConfig(r=4, **ALL), torch.bfloat16).float()
    for name, parameter in trainables(exact).items():
        assert trainables(mine)[name].dtype == torch.float32
        assert torch.equal(trainables(mine)[name], parameter), name
    reference = gradients(exact)
    assert distance(gradients(mine), reference) < 1.5 * distance(gradients(peft.to(torch.bfloat16)), reference)
    torch.testing.assert_close(five_steps(mine), five_steps(exact), rtol=1e-2, atol=0)
