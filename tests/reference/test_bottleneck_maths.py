"""Bottleneck adapters against a stand-alone module on a hand-made transformer: logits, gradients and five steps."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ftlab.strategies.bottleneck import Bottleneck, BottleneckAdapter
from tests.reference.blocks import IDS, LAYERS, WIDTH, Block, Tiny, spread

Kind = Literal["houlsby", "pfeiffer", "parallel"]
NAMES = {"down.weight": "down", "down.bias": "down_bias", "up.weight": "up", "up.bias": "up_bias"}


class Adapter(nn.Module):
    """Down, a non-linearity, up: the whole of Houlsby et al. 2019, figure 2, without its skip connection."""

    def __init__(self, rank: int, activation: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.activation = nn.Linear(WIDTH, rank), nn.Linear(rank, WIDTH), activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.activation(self.down(x)))
        return out


def reference(model: Tiny, kind: Kind, scale: float, own: nn.ModuleDict) -> Tensor:
    x = model.embedding(IDS)
    for number, block in enumerate(model.layers):
        assert isinstance(block, Block)
        out = block.attention(block.before(x))
        x = x + (out + scale * own[f"attention{number}"](out) if kind == "houlsby" else out)
        read = block.between(x)
        out = block.mlp(read)
        x = x + out + scale * own[f"mlp{number}"](read if kind == "parallel" else out)
    logits: Tensor = model.head(x)
    return logits


def both(kind: Kind, activation: str, scale: float | None) -> tuple[Tiny, dict[str, Bottleneck], nn.ModuleDict]:
    """The adapted model, its adapters by place, and their stand-alone twins."""
    model = Tiny()
    BottleneckAdapter(kind=kind, reduction_factor=4, non_linearity=activation, scale=scale).apply(model, {})  # type: ignore[arg-type]
    spread(model)
    ours: dict[str, Bottleneck] = {}
    for number in range(LAYERS):
        for place, name in (("attention", "o"), ("mlp", "down")):
            found = getattr(model.layers[number].get_submodule(name), "bottleneck", None)
            if isinstance(found, Bottleneck):
                ours[f"{place}{number}"] = found
    function = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[activation]
    twins = nn.ModuleDict({name: Adapter(WIDTH // 4, function()) for name in ours})
    for name, adapter in ours.items():
        twins[name].load_state_dict({theirs: adapter.state_dict()[mine] for theirs, mine in NAMES.items()})
    return model, ours, twins


def pairs(ours: dict[str, Bottleneck], twins: nn.ModuleDict) -> list[tuple[nn.Parameter, nn.Parameter]]:
    return [(a.get_parameter(NAMES[name]), p) for key, a in ours.items() for name, p in twins[key].named_parameters()]


@pytest.mark.parametrize(
    ("kind", "activation", "scale", "factor"),
    [
        ("houlsby", "gelu", None, 1.0), ("houlsby", "tanh", 0.7, 0.7), ("pfeiffer", "relu", None, 1.0),
        ("pfeiffer", "silu", 2.0, 2.0), ("parallel", "gelu", None, 4.0), ("parallel", "relu", 0.5, 0.5),
    ],
)  # fmt: skip
def test_same_as_by_hand(kind: Kind, activation: str, scale: float | None, factor: float) -> None:
    model, ours, twins = both(kind, activation, scale)
    assert len(ours) == (2 if kind == "houlsby" else 1) * LAYERS
    optimizers = [torch.optim.AdamW([pair[i] for pair in pairs(ours, twins)], lr=1e-2) for i in range(2)]
    plain = Tiny()
    for _ in range(5):
        logits = model(IDS).logits
        torch.testing.assert_close(logits, reference(plain, kind, factor, twins), rtol=1e-5, atol=1e-5)
        logits.pow(2).mean().backward()
        reference(plain, kind, factor, twins).pow(2).mean().backward()
        for mine, theirs in pairs(ours, twins):
            assert mine.grad is not None
            assert mine.grad.any()
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for mine, theirs in pairs(ours, twins):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_bfloat16_base_computes_as_well_as_bfloat16_throughout() -> None:
    """Both are held against the same weights computed in float32 throughout."""
    _, _, twins = both("houlsby", "gelu", None)
    exact = reference(Tiny(torch.bfloat16).float(), "houlsby", 1.0, twins)
    half, rounded = (BottleneckAdapter(kind="houlsby", reduction_factor=4).apply(Tiny(torch.bfloat16), {}) for _ in range(2))
    spread(half)
    spread(rounded)
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    ours, theirs = (model(IDS).logits for model in (half, rounded.to(torch.bfloat16)))
    assert ours.dtype == torch.bfloat16
    assert float((ours - exact).detach().norm()) < 1.5 * float((theirs - exact).detach().norm())
