"""LoRA+: the learning rates are those of PEFT's own optimiser."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from ftlab.errors import ConfigError
from ftlab.strategies.lora import LoRA
from tests.unit.strategies.test_lora import llama


@pytest.mark.parametrize("dora", [False, True])
def test_rates_are_those_of_peft(dora: bool) -> None:
    model = LoRA(r=4, dora=dora, lora_plus_ratio=16.0).apply(llama(), {})
    groups = LoRA(r=4, dora=dora, lora_plus_ratio=16.0).param_groups(model, 1e-3, 0.1)
    rates = {name: group["lr"] for group in groups for name, _ in group["params"]}  # type: ignore[attr-defined]
    peft = get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", use_dora=dora))
    optimizer = create_loraplus_optimizer(peft, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)
    names = {p: name.removeprefix("base_model.model.") for name, p in peft.named_parameters()}
    assert rates == {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(rates.values()) == {1e-3, 16e-3}
    assert sorted(rates) == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def test_matrices_decay_and_vectors_do_not() -> None:
    strategy = LoRA(r=4, dora=True, lora_plus_ratio=4.0)
    groups = strategy.param_groups(strategy.apply(llama(), {}), 1e-3, 0.1)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1e-3, 0.1), (4e-3, 0.1), (4e-3, 0.0)}


@pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf")])
def test_a_ratio_below_one_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="it is a number of at least 1, usually 16"):
        LoRA(lora_plus_ratio=ratio)
