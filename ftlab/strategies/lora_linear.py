"""PEFT's LoRA layer with one pass forward and one back: the base's dtype computes, the adapter's own dtype is kept for the optimiser."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)


class _Fused(torch.autograd.Function):
    """y = x·Wᵀ + bias + s·d·Aᵀ·Bᵀ with W frozen; x and its dropped form d are (n, in), A (R, in), B (out, R), y (n, out).

    The adapter's part is added in place in both directions, where separate modules read and write (n, out) four times more.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        seen = x if dropped is None else dropped
        low = seen @ low_a.t()
        out = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        out.addmm_(low, low_b.t(), alpha=scale)
        ctx.save_for_backward(seen, low, weight, low_a, low_b)
        ctx.scale, ctx.kinds, ctx.apart = scale, (a.dtype, b.dtype), dropped is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, low, weight, low_a, low_b = ctx.saved_tensors
        by_low = (grad @ low_b).mul_(ctx.scale)
        by_x = grad @ weight if ctx.needs_input_grad[0] else None
        by_dropped = by_low @ low_a if ctx.needs_input_grad[1] else None
        if by_x is not None and not ctx.apart:
            by_x.addmm_(by_low, low_a)
        by_a = (by_low.t() @ seen).to(ctx.kinds[0])
        by_b = (grad.t() @ low).mul_(ctx.scale).to(ctx.kinds[1])
        return by_x, by_dropped, None, None, by_a, by_b, None


class FusedLinear(lora.Linear):  # type: ignore[misc]  # PEFT is untyped
    """PEFT's layer, its names and its state; only what one adapter computes over a frozen, plain linear map is replaced.

    Everything else that the layer can be asked for (merged, switched off, several adapters, hooks on its parts) is PEFT's own.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # PEFT's signature
        if args or kwargs or not self._plain():
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        name = self.active_adapters[0]
        base = self.base_layer
        kind = x.device.type
        weight, bias = base.weight, base.bias
        if torch.is_autocast_enabled(kind):  # what autocast does to a linear map; an adapter then needs no dtype of its own
            target = torch.get_autocast_dtype(kind)
            x, weight = x.to(target), weight.to(target)
            bias = None if bias is None else bias.to(target)
        flat = x.reshape(-1, x.shape[-1])
        dropout = self.lora_dropout[name]
        dropped = dropout(flat) if isinstance(dropout, nn.Dropout) and dropout.training else None
        out: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
            flat, dropped, weight, bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        )
        return out.view(*x.shape[:-1], -1)

    def _plain(self) -> bool:
        active = self.active_adapters
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] not in self.lora_A:
            return False
        base, name = self.base_layer, active[0]
        if type(base) is not nn.Linear or type(base.weight) not in (nn.Parameter, Tensor):
            return False
        if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
            return False
        if name in self.lora_variant or self.lora_bias[name]:
            return False
        return not any(_watched(m) for m in (base, self.lora_A[name], self.lora_B[name]))


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def use_fused(config: LoraConfig, targets: Iterable[tuple[str, nn.Module]]) -> None:
    """Have PEFT build `FusedLinear` where it computes the same; what was decided, and why, is logged.

    Args:
        config: What the adapter is built from; it is changed.
        targets: Name → module, the maps to adapt.
    """
    found = list(targets)
    plain = [name for name, module in found if type(module) is nn.Linear]
    # PEFT takes the first registered class by isinstance, so a quantised map would lose the layer that PEFT has for it.
    other = [f"{name} is a {type(module).__name__}" for name, module in found if type(module) is not nn.Linear]
    derived = any(isinstance(module, nn.Linear) and type(module) is not nn.Linear for _, module in found)
    if config.use_dora:
        reason = "DoRA scales the whole adapted weight"
    elif config.bias != "none":
        reason = f"biases are trained (bias: {config.bias})"
    elif derived or not plain:
        reason = other[0]
    else:
        config._register_custom_module({nn.Linear: FusedLinear})
        log.info("fused LoRA: applied to %d of %d maps%s", len(plain), len(found), f"; {other[0]}" if other else "")
        return
    log.info("fused LoRA: not applicable, %s", reason)
