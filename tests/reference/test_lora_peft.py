"""LoRA against PEFT driven by hand: logits, gradients and five steps."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from ftlab.strategies.lora import LoRA
from tests.reference.division import tiny_llama

IDS = torch.tensor([[1, 5, 9, 40, 7, 3], [1, 8, 8, 12, 90, 2]])


def base() -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(tiny_llama(), dtype=torch.float32)
    return model.eval()


def by_peft(config: LoraConfig) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = get_peft_model(base(), config)
    return model


def by_ftlab(strategy: LoRA) -> nn.Module:
    torch.manual_seed(0)
    return strategy.apply(base(), {})


def trainables(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if p.requires_grad}


def five_steps(model: nn.Module) -> list[float]:
    optimizer = torch.optim.AdamW(trainables(model).values(), lr=1e-2)
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
        (LoRA(r=4), LoraConfig(r=4, lora_alpha=16, target_modules="all-linear")),
        (LoRA(r=4, rslora=True, dora=True), LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", use_rslora=True, use_dora=True)),
    ],
)
def test_same_as_peft(ours: LoRA, theirs: LoraConfig) -> None:
    mine, peft = by_ftlab(ours), by_peft(theirs)
    assert trainables(mine).keys() == trainables(peft).keys()
    for name, parameter in trainables(peft).items():
        assert torch.equal(trainables(mine)[name], parameter), name
    mine(input_ids=IDS, labels=IDS).loss.backward()
    peft(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in trainables(peft).items():
        assert torch.equal(trainables(mine)[name].grad, parameter.grad), name  # type: ignore[arg-type]
    assert five_steps(mine) == five_steps(peft)
