"""From a configuration's optimiser to one over a strategy's parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from ftlab.errors import ConfigError, EnvironmentFault
from ftlab.strategies.base import TuningStrategy

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
"""What a configuration's `model.optimizer` becomes: everything set but the parameters."""


def build_optimizer(chosen: OptimizerCallable | None, tuning: TuningStrategy, model: nn.Module) -> Optimizer:
    """The optimiser over the strategy's groups.

    Adam and AdamW run fused unless the configuration says otherwise: one kernel instead of one loop per tensor.

    Args:
        chosen: The configuration's optimiser, or None for AdamW with the strategy's own learning rate.
        tuning: Makes the parameter groups.
        model: What the strategy's `apply` returned.

    Raises:
        ConfigError: Nothing is trainable, or the optimiser refuses its values.
        EnvironmentFault: It needs a device that the model is not on.
    """
    make: OptimizerCallable = chosen or (lambda groups: AdamW(groups, lr=tuning.traits.learning_rate))
    probe = tried(make)
    _check_paging(probe, model)
    defaults = probe.defaults
    lr, decay = defaults["lr"], defaults.get("weight_decay", 0.0)
    if not 0 < lr < float("inf"):
        raise ConfigError(f"model.optimizer.lr is {lr}; it must be a finite number above 0.")
    groups = tuning.param_groups(model, lr, decay)
    if not groups:
        total = sum(p.numel() for p in model.parameters())
        raise ConfigError(f"model.tuning {type(tuning).__name__} leaves none of {total:,} parameters trainable; choose what to train.")
    if isinstance(probe, Adam | AdamW) and defaults["fused"] is None and defaults["foreach"] is None:
        groups = [{"fused": True, **group} for group in groups]
    return make(groups)


def _check_paging(optimizer: Optimizer, model: nn.Module) -> None:
    """Refuse one of bitsandbytes' paged optimisers on a CPU, where it would quietly be the plain one."""
    name = type(optimizer).__name__
    if getattr(optimizer, "is_paged", False) and all(p.device.type == "cpu" for p in model.parameters()):
        raise EnvironmentFault(f"model.optimizer is {name}, whose paging needs a CUDA device; use {name.removeprefix('Paged')} on the CPU.")


def tried(make: OptimizerCallable) -> Optimizer:
    """The optimiser over a single number, which shows its arguments and whether it takes them.

    Raises:
        ConfigError: It refuses them.
    """
    try:
        return make([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"model.optimizer refuses its arguments: {str(error).rstrip('.')}; `ftlab fit --model.optimizer.help NAME` lists them."
        ) from error
