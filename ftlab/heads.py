"""Which modules of a freshly loaded model hold weights that no file filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ftlab.errors import CheckpointError

if TYPE_CHECKING:
    from ftlab.backbone import Backbone


def fresh_modules(model: nn.Module, missing: set[str], backbone: Backbone) -> dict[str, nn.Module]:
    """Name → the largest modules all of whose parameters are fresh.

    Args:
        model: The loaded model.
        missing: Parameters that no stored weight filled.
        backbone: Where it came from. With `fresh` there is no stored weight, and the heads are what stands beside the body.

    Raises:
        CheckpointError: A weight inside the transformer layers is missing, so the file is of another model.
    """
    if backbone.fresh:
        body = getattr(model, "base_model", model)
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        return {name: m for name, m in model.named_children() if m is not body and output not in m.modules()}
    parameters = {name for name, _ in model.named_parameters()}
    found = {_largest(model, name, missing) for name in missing & parameters}
    for name in sorted(found):
        if any(isinstance(model.get_submodule(parent), nn.ModuleList) for parent in _parents(name)):
            raise CheckpointError(f"{backbone.name} has no weight for '{name}' of its transformer layers; the file is damaged or of another model.")
    return {name: model.get_submodule(name) for name in sorted(found)}


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _largest(model: nn.Module, parameter: str, missing: set[str]) -> str:
    name = parameter.rpartition(".")[0]
    while "." in name:
        parent = name.rpartition(".")[0]
        if not all(f"{parent}.{p}" in missing for p, _ in model.get_submodule(parent).named_parameters()):
            break
        name = parent
    return name
