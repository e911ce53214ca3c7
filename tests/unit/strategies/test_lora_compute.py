"""The fused LoRA layer: where it is used, that its gradients are right, and that PEFT's own layer does everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ftlab.backbone import Backbone
from ftlab.strategies.lora import LoRA
from ftlab.strategies.lora_linear import FusedLinear, _Fused
from ftlab.testing.models import tiny_model_folder

X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))


class Derived(nn.Linear):
    """What quantised linear maps are to nn.Linear."""


class Two(nn.Module):
    """Two linear maps."""

    def __init__(self, bias: bool = True, kind: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5, bias=bias)
        self.second = kind(5, 4, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def spread(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model


def ours(dtype: torch.dtype = torch.float32, bias: bool = True, dropout: float = 0.0) -> nn.Module:
    return spread(LoRA(r=2, alpha=3, dropout=dropout, target_modules=["first", "second"]).apply(Two(bias).to(dtype), {}))


def by_peft(dtype: torch.dtype = torch.float32, bias: bool = True, dropout: float = 0.0) -> nn.Module:
    model = Two(bias).to(dtype).requires_grad_(False)
    config = LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=["first", "second"])
    model = inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            model.get_submodule(name.rpartition(".")[0]).weight = nn.Parameter(parameter.float())
    return spread(model)


def layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def fused_nodes(out: Tensor) -> int:
    """How often the fused function stands in the graph."""
    seen, stack = set(), [out.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
    return sum(node.name() == "_FusedBackward" for node in seen)


def results(model: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = call(x)
    (out.float() * torch.arange(out.numel()).view(out.shape).cos()).sum().backward()
    assert x.grad is not None
    return {"out": out.detach(), "x": x.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_outputs_and_gradients_are_those_of_peft(bias: bool, dropout: float) -> None:
    mine, peft = ours(bias=bias, dropout=dropout), by_peft(bias=bias, dropout=dropout)
    assert list(mine.state_dict()) == list(peft.state_dict())
    assert fused_nodes(mine(X)) == 2
    torch.manual_seed(3)
    got = results(mine, mine, X)
    torch.manual_seed(3)
    torch.testing.assert_close(got, results(peft, peft, X), rtol=1e-6, atol=1e-5)
    mine.eval(), peft.eval()
    torch.testing.assert_close(mine(X), peft(X))


@pytest.mark.parametrize("dropped", [True, False])
def test_gradients_against_finite_differences(dropped: bool) -> None:
    x, d, w, c, a, b = (torch.randn(*s, dtype=torch.float64) for s in ((7, 6), (7, 6), (5, 6), (5,), (2, 6), (5, 2)))
    x, d, a, b = (t.requires_grad_() for t in (x, d, a, b))

    def call(x: Tensor, d: Tensor, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = _Fused.apply(x, d if dropped else None, w, c, a, b, 1.5)  # type: ignore[no-untyped-call]
        return out

    assert torch.autograd.gradcheck(call, (x, d, a, b))


def test_an_input_without_gradient() -> None:
    model = ours()
    model(X).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_bfloat16_base_is_computed_in_bfloat16_with_float32_masters() -> None:
    model, exact = ours(torch.bfloat16), ours(torch.bfloat16).float()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        out = model(X.bfloat16())
    assert out.dtype == torch.bfloat16
    assert {t.dtype for t in saved} == {torch.bfloat16}
    got, expected = results(model, model, X.bfloat16()), results(exact, exact, X.bfloat16().float())
    assert {n: t.dtype for n, t in got.items() if "lora" in n} == {n: torch.float32 for n in got if "lora" in n}
    for name, tensor in expected.items():
        assert (got[name].float() - tensor).norm() < 0.03 * tensor.norm(), name


def test_autocast_computes_as_peft_under_autocast() -> None:
    mine, peft = ours(), by_peft()

    def cast(model: nn.Module) -> Callable[[Tensor], Tensor]:
        inside: Callable[[Tensor], Tensor] = torch.autocast("cpu", torch.bfloat16)(model.forward)
        return inside

    assert fused_nodes(cast(mine)(X)) == 2
    exact = results(by := by_peft(), by, X)
    got, theirs = results(mine, cast(mine), X), results(peft, cast(peft), X)
    for name, tensor in exact.items():
        assert got[name].dtype == theirs[name].dtype, name
        assert (got[name] - tensor).norm() < 0.03 * tensor.norm(), name


def test_gradient_checkpointing() -> None:
    model = ours()
    plain = results(model, model, X)
    model.zero_grad()
    torch.testing.assert_close(results(model, lambda x: checkpoint(model, x, use_reentrant=False), X), plain, rtol=0, atol=0)


def test_hooks_on_the_parts_are_called() -> None:
    model, peft = ours(), by_peft()
    seen: list[str] = []
    model.get_submodule("first.base_layer").register_forward_hook(lambda *_: seen.append("base"))
    model.get_submodule("second.lora_A.default").register_forward_pre_hook(lambda *_: seen.append("A"))
    out = model(X)
    assert seen == ["base", "A"]
    assert fused_nodes(out) == 0
    torch.testing.assert_close(out, peft(X))


def test_switched_off_merged_or_several_adapters_are_pefts_business() -> None:
    model, peft = ours(), by_peft()
    for each in (model, peft):
        layer(each, "first").enable_adapters(False)
        layer(each, "second").merge()
    torch.testing.assert_close(model(X), peft(X))
    assert fused_nodes(model(X)) == 0
    model, peft = ours(), by_peft()
    for each in (model, peft):
        with pytest.warns(UserWarning, match="multiple adapters"):
            inject_adapter_in_model(LoraConfig(r=1, target_modules=["first"]), each, "other")
        layer(each, "first").set_adapter(["default", "other"])
        layer(each, "second").set_adapter("default")
        spread(each)
    assert fused_nodes(model(X)) == 1
    torch.testing.assert_close(model(X), peft(X))


def test_a_base_that_is_trained_gets_its_gradient() -> None:
    model = ours()
    bias = model.get_parameter("first.base_layer.bias").requires_grad_(True)
    model(X).sum().backward()
    assert bias.grad is not None


@pytest.mark.parametrize(
    ("strategy", "kind", "said"),
    [
        (LoRA(r=2, target_modules=["first", "second"]), nn.Linear, "fused LoRA: applied to 2 of 2 maps"),
        (LoRA(r=2, target_modules=["first"], dora=True), nn.Linear, "fused LoRA: not applicable, DoRA scales the whole adapted weight"),
        (LoRA(r=2, target_modules=["first"], bias="all"), nn.Linear, "fused LoRA: not applicable, biases are trained (bias: all)"),
        (LoRA(r=2, target_modules=["first", "second"]), Derived, "fused LoRA: not applicable, second is a Derived"),
    ],
)
def test_what_is_said(strategy: LoRA, kind: type[nn.Linear], said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ftlab.strategies.lora_linear"):
        model = strategy.apply(Two(kind=kind), {})
    assert caplog.messages == [said]
    expected = FusedLinear if "applied" in said else lora.Linear
    assert {type(m) for m in model.modules() if isinstance(m, lora.LoraLayer)} == {expected}


def test_gpt2_keeps_pefts_layers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Backbone(name=str(tiny_model_folder("gpt2", tmp_path / "gpt2"))).load_model("AutoModelForCausalLM", {}, {})[0]
    with caplog.at_level(logging.INFO, "ftlab.strategies.lora_linear"):
        adapted = LoRA().apply(model, {})
    assert caplog.messages == ["fused LoRA: not applicable, transformer.h.0.attn.c_attn is a Conv1D"]
    assert {type(m) for m in adapted.modules() if isinstance(m, lora.LoraLayer)} == {lora.Linear}
