"""Bottleneck adapters: small two-layer networks beside or behind the halves of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.sublayers import Place, first_tensor, halves, named_places

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}
_NAME = "bottleneck"


class Bottleneck(nn.Module):
    """A(x) = s · (σ(x·Dᵀ + d)·Uᵀ + u) with D (R, D) and U (D, R): zero at the start, because U and u are.

    Its tensors are in float32; it computes in the type of its input.
    """

    def __init__(self, width: int, rank: int, activation: str, scale: float, dropout: float) -> None:
        super().__init__()
        kind = torch.float32  # the default type is a shorter one while Lightning builds a model for bf16-true
        self.down = nn.Parameter(torch.empty(rank, width, dtype=kind))
        self.down_bias = nn.Parameter(torch.zeros(rank, dtype=kind))
        self.up = nn.Parameter(torch.zeros(width, rank, dtype=kind))
        self.up_bias = nn.Parameter(torch.zeros(width, dtype=kind))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.activation, self.scale, self.dropout = activation, scale, dropout
        self.seen: Tensor | None = None  # the input of a function that it stands beside, until that has been computed

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        kind = x.dtype
        low = _ACTIVATIONS[self.activation](F.linear(x, self.down.to(kind), self.down_bias.to(kind)))
        out = F.linear(low, self.up.to(kind), self.up_bias.to(kind)) * self.scale
        return F.dropout(out, self.dropout, self.training)


@dataclass(frozen=True, kw_only=True)
class BottleneckAdapter(TuningStrategy):
    """Add small two-layer networks A to the functions f of each layer, before the residual connection.

    houlsby has f(x) + A(f(x)) for attention and MLP (Houlsby et al. 2019), pfeiffer for the MLP alone (Pfeiffer et al. 2021; here
    without the normalisation that some of their models share with the adapter), parallel f(x) + A(x) for the MLP (He et al. 2022).

    Args:
        kind: Which functions are adapted; houlsby, pfeiffer or parallel.
        reduction_factor: The model's width divided by that of the adapter.
        non_linearity: Between the two maps of the adapter.
        scale: Factor of the adapter's output; null is 4 for parallel and 1 for the others.
        dropout: Probability of dropping an output of the adapter while training.
        layers: Numbers of the layers to adapt; null adapts all.
        attention_modules: Names, inside a layer, of what to adapt for attention, such as self_attn; null finds it.
        mlp_modules: Names, inside a layer, of what to adapt for the MLP, such as mlp; null finds it.
    """

    traits = Traits(learning_rate=5e-4, paper="Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP")

    kind: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    reduction_factor: int = 16
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    scale: float | None = None
    dropout: float = 0.0
    layers: list[int] | None = None
    attention_modules: list[str] | None = None
    mlp_modules: list[str] | None = None

    def __post_init__(self) -> None:
        if self.reduction_factor < 1:
            raise ConfigError(f"model.tuning.reduction_factor is {self.reduction_factor}; it is a whole number of at least 1.")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ConfigError(f"model.tuning.scale is {self.scale:g}; it must be above 0, or the adapter has no effect and no gradient.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.tuning.dropout is {self.dropout:g}; it is a probability, at least 0 and below 1.")
        for name, value in (("layers", self.layers), ("attention_modules", self.attention_modules), ("mlp_modules", self.mlp_modules)):
            if value == []:
                raise ConfigError(f"model.tuning.{name} is empty; name at least one, or write null.")
        if self.attention_modules is not None and self.kind != "houlsby":
            raise ConfigError(f"model.tuning.attention_modules is set, but kind {self.kind} adapts the MLP alone; set kind to houlsby.")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        places = self._places(model)
        model.requires_grad_(False)
        for place in places:
            self._attach(place)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def _places(self, model: nn.Module) -> list[Place]:
        both = self.kind == "houlsby"
        found = [] if self.mlp_modules and (self.attention_modules or not both) else halves(model, self.layers)
        mlp, attention = [half[1] for half in found], [half[0] for half in found] if both else []
        if self.mlp_modules:
            mlp = named_places(model, self.mlp_modules, self.layers, "model.tuning.mlp_modules")
        if self.attention_modules:
            attention = named_places(model, self.attention_modules, self.layers, "model.tuning.attention_modules")
        return attention + mlp

    def _attach(self, place: Place) -> None:
        if hasattr(place.last, _NAME):
            raise ConfigError(f"model.tuning would put two adapters on '{place.name}'; name it once in attention_modules and mlp_modules.")
        beside = self.kind == "parallel"
        if beside and place.reads != place.width:
            raise ConfigError(
                f"model.tuning.mlp_modules means '{place.name}', which reads {place.reads} and gives {place.width} numbers a token, "
                "so nothing of one width stands beside it; name the module of the whole MLP."
            )
        scale = (4.0 if beside else 1.0) if self.scale is None else self.scale  # 4 is what He et al. 2022 tuned it to
        rank = max(1, place.width // self.reduction_factor)
        adapter = Bottleneck(place.width, rank, self.non_linearity, scale, self.dropout)
        device = next((p.device for p in place.last.parameters()), torch.device("cpu"))
        place.last.add_module(_NAME, adapter.to(device))
        if beside:
            place.first.register_forward_pre_hook(partial(_note_input, adapter), with_kwargs=True)
        place.last.register_forward_hook(_beside if beside else _behind)


def _note_input(adapter: Bottleneck, module: nn.Module, args: tuple[object, ...], given: dict[str, object]) -> None:
    adapter.seen = first_tensor((*args, *given.values()))


def _beside(module: nn.Module, args: object, output: object) -> object:
    adapter = module.get_submodule(_NAME)
    assert isinstance(adapter, Bottleneck)
    seen, adapter.seen = adapter.seen, None
    return _plus(adapter, seen, output)


def _behind(module: nn.Module, args: object, output: object) -> object:
    return _plus(module.get_submodule(_NAME), first_tensor(output), output)


def _plus(adapter: nn.Module, x: Tensor | None, output: object) -> object:
    """`output`, a tensor (…, D) or a tuple that begins with one, with A(x) added to it."""
    value = first_tensor(output)
    assert x is not None
    assert value is not None
    added = value + adapter(x).to(value.dtype)
    return (added, *output[1:]) if isinstance(output, tuple) else added
