"""How much rank a run's change of the weights has, and a run as a LoRA adapter: the truncated SVD (Eckart and Young 1936)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.adapters import ADAPTER
from ftlab.errors import ConfigError
from ftlab.heads import fresh_modules
from ftlab.merging import put
from ftlab.strategies.base import Placement
from ftlab.strategies.lora import LoRA
from ftlab.strategies.targets import linear_names

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a run did to one weight.

    Args:
        name: The linear map's full name.
        delta: New weight less the old one (out, in), in float64.
        size: Frobenius norm of the old weight.
    """

    name: str
    delta: Tensor
    size: float

    @property
    def norm(self) -> float:
        """Frobenius norm of the change."""
        return float(self.delta.norm())

    def energy(self) -> Tensor:
        """Share of ‖Δ‖² that the first 1, 2, … singular values hold (min(out, in),)."""
        squares = torch.linalg.svdvals(self.delta).square()
        shares: Tensor = squares.cumsum(0) / squares.sum()
        return shares

    def rank(self, share: float) -> int:
        """The least rank that holds this share of ‖Δ‖²."""
        return int((self.energy() < share).sum()) + 1


def truncated(delta: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """A (R, in) and B (out, R) whose product is the closest one of rank R to `delta` in the Frobenius norm.

    The scale of a singular value is shared between the two. Where R is above the full rank, rows and columns of zeros follow.
    """
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    root = s[:r].sqrt()
    a, b = root[:, None] * v[:r], u[:, :r] * root
    missing = r - len(root)
    return nn.functional.pad(a, (0, 0, 0, max(missing, 0))), nn.functional.pad(b, (0, max(missing, 0)))


def changes(model: nn.Module, base: nn.Module) -> tuple[list[Change], list[str]]:
    """What differs between two plain models of one class.

    Returns:
        The linear maps whose weights differ, and the names of all other parameters that do.
    """
    linear = {f"{name}.weight": model.get_submodule(name) for name in linear_names(model)}
    old = dict(base.named_parameters())
    found: list[Change] = []
    others: list[str] = []
    for name, parameter in model.named_parameters():
        if name not in old or old[name].shape != parameter.shape:
            others.append(name)
        elif not torch.equal(old[name], parameter):
            if name in linear:
                delta = (parameter - old[name]).detach().double()
                turned = delta.T if isinstance(linear[name], Conv1D) else delta
                found.append(Change(name=name.removesuffix(".weight"), delta=turned, size=float(old[name].detach().norm())))
            else:
                others.append(name)
    return found, others


def compared(module: FinetuneModule) -> tuple[list[Change], list[str], frozenset[str]]:
    """What a run changed in its base.

    Returns:
        The linear maps outside the fresh heads whose weights differ, the names of all other parameters that do, and the heads' names.

    Raises:
        ConfigError: The base is quantised, or the vocabulary has grown.
        NotMergeableError: The strategy has no merged form.
    """
    who = type(module.tuning).__name__
    if module.tuning.load_options(Placement(device=torch.device("cpu"), precision="32-true")):
        raise ConfigError(f"{who} has a quantised base, whose weights are not those that were trained on; there is nothing to compare.")
    if module.backbone.new_tokens:
        raise ConfigError("model.backbone.new_tokens added rows that the base does not have, so the weights cannot be compared.")
    merged = module.tuning.merge(copy.deepcopy(module.adapted))
    base, missing = module.backbone.load_model(module.task.auto_class, module.task.model_options(), {})
    heads = frozenset(fresh_modules(base, missing, module.backbone))
    found, others = changes(merged, base)
    inside = tuple(f"{head}." for head in heads)
    outside = [name for name in others if not name.startswith(inside)]
    return [c for c in found if not f"{c.name}.".startswith(inside)], outside, heads


def as_lora(module: FinetuneModule, r: int) -> tuple[FinetuneModule, list[Change], list[str]]:
    """A run as a LoRA adapter of rank `r` on its base.

    Args:
        module: The run, of a strategy that can be merged.
        r: Rank of every layer's adapter.

    Returns:
        A module that holds the adapter and the run's fresh heads, what the run changed, and the changed tensors that an adapter has no
        place for.

    Raises:
        ConfigError: The run changed no linear map; or see `compared`.
        NotMergeableError: Its strategy has no merged form.
    """
    from ftlab.module import FinetuneModule

    found, others, heads = compared(module)
    if not found:
        raise ConfigError("the run changed no linear map outside its heads, so there is nothing to write as LoRA.")
    tuning = LoRA(r=r, alpha=float(r), target_modules=[c.name for c in found])
    other = FinetuneModule(module.backbone, module.task, tuning)
    with torch.random.fork_rng(devices=[]):
        other.configure_model()
    _fill(other.adapted, found, r)
    state = module.adapted.state_dict()
    put(other.adapted, {name: state[name] for name in state if name.startswith(tuple(f"{head}." for head in heads))})
    other.eval()
    return other, found, others


def _fill(model: nn.Module, found: list[Change], r: int) -> None:
    for change in found:
        layer = model.get_submodule(change.name)
        a, b = truncated(change.delta, r)
        parts: Mapping[str, Tensor] = {"lora_A": a, "lora_B": b}
        for part, value in parts.items():
            weight = layer.get_submodule(f"{part}.{ADAPTER}").weight
            assert isinstance(weight, nn.Parameter)
            weight.data.copy_(value)
