"""Whether a merged model is the trained one: the adaptation beside the weights, folded into them, and quantised again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab import parity
from ftlab.growth import grow
from ftlab.heads import fresh_modules
from ftlab.parity import Parity
from ftlab.quantised import quantised_maps, rounded
from ftlab.strategies.applied import applied

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

Sample = list[Mapping[str, Tensor]]

_OF_QUANTISING = 8.0
"""What merging may change, as a multiple of what quantising the untuned base changes: one such error is taken out and, requantised,
another one of other weights is put in. On 14 small models of 13 families the multiples were 0.2 to 4.7."""

_OTHER_DEVICE = 1e-3
"""The same where one of two float32 models computes on a GPU, the other on the CPU."""


@dataclass(frozen=True, kw_only=True)
class MergeParity:
    """How merging changes a model's outputs.

    Args:
        folded: The adaptation beside the weights against the same folded in, over the same base in the same type.
        merged: The trained model against the merged one, whose base is not quantised.
        requantised: Of a quantised base: the trained model against the merged one, quantised in the same way.
    """

    folded: Parity
    merged: Parity
    requantised: Parity | None = None

    @property
    def holds(self) -> bool:
        """Whether every difference is within its tolerance."""
        return all(p.holds for p in (self.folded, self.merged, self.requantised) if p is not None)

    def __str__(self) -> str:
        parts = {"folded in": self.folded, "merged": self.merged, "merged and quantised again": self.requantised}
        return "; ".join(f"{name}: {found}" for name, found in parts.items() if found is not None)

    def figures(self) -> dict[str, object]:
        """As plain types."""
        parts = {"folded": self.folded, "merged": self.merged, "requantised": self.requantised}
        return {name: {**vars(p), "holds": p.holds} for name, p in parts.items() if p is not None}


class Merged(NamedTuple):
    """A plain HF model, on the CPU, and how it differs from the trained one."""

    model: nn.Module
    parity: MergeParity


def merged(module: FinetuneModule, sample: Sample, dtype: torch.dtype | None = None) -> Merged:
    """Fold what a module has learnt into its base, and compare.

    The base is read again in its own type, which for a quantised one means the weights that were quantised: the sum is then rounded
    once and never packed. This second copy stands in the host's memory, never on the module's device, and is the only one: the
    adaptation is compared in it before and after it is folded in, and it is quantised again one weight at a time.

    Args:
        module: The trained module, on any device; as before when this returns.
        sample: Inputs to compare on.
        dtype: Type of the merged weights; None is that of the stored base.

    Raises:
        NotMergeableError: The strategy has no merged form.
    """
    other = _reloaded(module, dtype)
    own: torch.dtype = other.dtype if dtype is None else dtype
    packed = {name.removesuffix(".base_layer"): m for name, m in quantised_maps(module.adapted).items()}
    allowed = _OF_QUANTISING * _of_quantising(module, other, sample) if packed else _of_types(module.adapted, own)
    _copy(module, other, own)  # so that a head computes in the base's type
    beside = parity.logits_of(other, sample)
    _copy(module, other, None)
    model = module.tuning.merge(other).to(own)
    folded = parity.logits_of(model, sample)
    rows = rows_of(sample)
    exact = parity.compare(beside, folded, rows, parity.tolerance(own, rearranged=True))
    trained = _live(module.adapted, sample)
    whole = parity.compare(trained, folded, rows, allowed)
    if not packed:
        return Merged(model, MergeParity(folded=exact, merged=whole))
    with _requantised(model, packed):
        again = parity.compare(trained, parity.logits_of(model, sample), rows, allowed)
    return Merged(model, MergeParity(folded=exact, merged=whole, requantised=again))


def rows_of(sample: Sample) -> int:
    """How many rows a sample has."""
    return sum(len(inputs["input_ids"]) for inputs in sample)


def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model's tensors the values of `tensors`, and their type."""
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].data = state[name].data.to(value.dtype)
            state[name].copy_(value)


def _reloaded(module: FinetuneModule, dtype: torch.dtype | None) -> Any:
    """The adapted model as it is before training, on the CPU, over the base as it is stored."""
    name: Any = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    backbone = module.backbone if module.backbone.fresh else replace(module.backbone, dtype=name)
    with torch.random.fork_rng(devices=[]):
        model, missing = backbone.load_model(module.task.auto_class, module.task.model_options(), {})
        model.config.pad_token_id = module.tokenizer.pad_token_id
        heads = fresh_modules(model, missing, backbone) | grow(model, backbone, module.tokenizer)
        return applied(module.tuning.bind(module.tokenizer), model, heads)


def _copy(module: FinetuneModule, other: nn.Module, dtype: torch.dtype | None) -> None:
    """Give `other` what a module has learnt; floating-point numbers in `dtype`, None is float32 at least, so that a sum is rounded once."""
    owned = module.tuning.owned(module.adapted)
    found = {name: t for name, t in module.adapted.state_dict().items() if name in owned}
    put(other, {name: t.to("cpu", _wide(t) if dtype is None else dtype) if t.is_floating_point() else t.cpu() for name, t in found.items()})


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _live(model: nn.Module, sample: Sample) -> list[Tensor]:
    device = next(model.parameters()).device
    return [t.cpu() for t in parity.logits_of(model, [{k: v.to(device) for k, v in inputs.items()} for inputs in sample])]


def _of_types(model: nn.Module, own: torch.dtype) -> float:
    """What the types of two models, and the kernels of their devices, may change."""
    least = max({own, *(p.dtype for p in model.parameters() if p.is_floating_point())}, key=lambda kind: torch.finfo(kind).eps)
    here = next(model.parameters()).device.type == "cpu"
    return max(parity.tolerance(least, rearranged=True), 0.0 if here else _OTHER_DEVICE)


def _of_quantising(module: FinetuneModule, other: nn.Module, sample: Sample) -> float:
    """What quantising the base changes before training, by the logits' scale."""
    owned = module.tuning.owned(other)
    kept = {name: t.detach().clone() for name, t in module.adapted.state_dict().items() if name in owned}
    put(module.adapted, {name: t for name, t in other.state_dict().items() if name in owned})
    try:
        packed = _live(module.adapted, sample)
    finally:
        put(module.adapted, kept)
    return parity.compare(parity.logits_of(other, sample), packed, rows_of(sample), 0.0).largest


@contextmanager
def _requantised(model: nn.Module, packed: Mapping[str, Any]) -> Iterator[None]:
    """`model` computing with weights that went through the quantisation of `packed`; one weight is held twice at a time."""
    handles = []
    for name, source in packed.items():
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(_Rounding(source)))
        handles.append(module.register_forward_hook(_restore, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Rounding:
    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, module: Any, _: object) -> None:
        weight = module.weight.detach()
        module.kept = weight
        turned = isinstance(module, Conv1D)
        found = rounded(weight.t() if turned else weight, self.source)
        module.weight.data = found.t() if turned else found


def _restore(module: Any, *_: object) -> None:
    module.weight.data = module.kept
    del module.kept
