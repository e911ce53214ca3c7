"""What is asked of the module that a strategy's `apply` returns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ftlab.errors import ConfigError
from ftlab.strategies.base import TuningStrategy


def applied(tuning: TuningStrategy, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
    """The module that `tuning.apply` returns.

    Args:
        tuning: The strategy.
        model: The loaded backbone.
        heads: Name → fresh module.

    Raises:
        ConfigError: It is no module, or a fresh head would keep its random weights: frozen, or not owned.
    """
    name = type(tuning).__name__
    result: object = tuning.apply(model, heads)
    if not isinstance(result, nn.Module):
        raise ConfigError(f"{name}.apply returned {result!r:.60}; apply(self, model, heads) must return the module to train.")
    owned = tuning.owned(result)
    kept = {id(p) for n, p in result.named_parameters(remove_duplicate=False) if n in owned}
    for head, module in heads.items():
        parameters = list(module.parameters())
        if not all(p.requires_grad for p in parameters):
            raise ConfigError(f"{name}.apply left the fresh head '{head}' frozen at random weights; call requires_grad_(True) on it.")
        if not all(id(p) in kept for p in parameters):
            raise ConfigError(f"{name}.owned leaves out the fresh head '{head}', whose weights would be lost; name all its tensors.")
    return result
