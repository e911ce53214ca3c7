"""PEFT's low-rank layers put into a model, and folded into the weights below them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.adapters import ADAPTER
from ftlab.errors import ConfigError, suggest
from ftlab.quantised import as_source, plain_map, quantised_maps, unquantise
from ftlab.strategies.targets import compiled, match_targets

if TYPE_CHECKING:
    from peft import LoraConfig

log = logging.getLogger(__name__)


def add_lora(
    model: nn.Module, heads: Mapping[str, nn.Module], config: LoraConfig, wanted: str | list[str], layers: Collection[int] | None
) -> None:
    """Freeze `model`, put low-rank adapters into it, and train them and the heads.

    Args:
        model: The loaded backbone, quantised or not.
        heads: Name → fresh module, trained whole.
        config: PEFT's configuration; its targets are filled in.
        wanted: Which linear maps, as `match_targets` reads it.
        layers: Numbers of the layers to stay within, or None for all.

    Raises:
        ConfigError: A name or pattern matches nothing.
    """
    from peft import inject_adapter_in_model
    from peft.functional import cast_adapter_dtype

    from ftlab.strategies.lora_linear import use_fused

    targets = match_targets(model, wanted, layers, heads)
    _check(model, targets, config)
    model.requires_grad_(False)
    config.target_modules = set(targets)
    config.fan_in_fan_out = all(isinstance(model.get_submodule(t), Conv1D) for t in targets)
    use_fused(config, [(name, model.get_submodule(name)) for name in targets])
    inject_adapter_in_model(config, model, ADAPTER)
    cast_adapter_dtype(model, ADAPTER)  # injection takes the base's dtype, in which an optimiser's small steps round to nothing
    for head in heads.values():
        head.requires_grad_(True)


def _check(model: nn.Module, targets: list[str], config: LoraConfig) -> None:
    for key, patterns in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        for pattern in patterns:
            expression = compiled(rf"(.*\.)?({pattern})", f"model.tuning.{key}")
            if not any(expression.fullmatch(t) for t in targets):
                raise ConfigError(f"model.tuning.{key} has '{pattern}', which matches no target; {suggest(pattern, targets, 5)}")
    for name in targets:
        smallest = _width(model.get_submodule(name))
        if config.r > smallest:
            log.warning("model.tuning.r is %d, above the %d of %s: a full update would be smaller", config.r, smallest, name)
            break


def _width(module: Any) -> int:
    """The smaller side of a linear map; a packed weight does not show it."""
    sides = module.weight.shape if isinstance(module, Conv1D) else (module.in_features, module.out_features)
    return int(min(sides))


def merge_lora(model: nn.Module) -> nn.Module:
    """`model` with its adapters folded into the weights below them; quantised weights become those that they stand for."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            found = module.get_base_layer()
            base: Any = plain_map(found)
            dtype = base.weight.dtype
            base.float()  # so that the sum is rounded once
            if quantised_maps(found):
                module.base_layer = base
                base.weight.data = _sum(module, base.weight)
            else:
                module.merge(safe_merge=True)
            base.to(dtype)
            model.set_submodule(name, as_source(base, found))
    unquantise(model)
    return model


def _sum(module: Any, weight: Tensor) -> Tensor:
    """Weight and update (out, in) of one of PEFT's quantised layers, whose own `merge` would quantise the sum again."""
    variant = module.lora_variant.get(ADAPTER)
    found: Tensor = weight + module.get_delta_weight(ADAPTER) if variant is None else variant.merge_safe(module, ADAPTER, weight)
    return found.detach()
