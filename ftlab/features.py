"""Hidden states below everything that trains: computed once for each row, kept in a file, and put in the place of the layers below.

A matrix product rounds by the shape of the batch, so that states from other batches are other in the last bits. All runs that read one file
are equal to the last bit; a run that computes the states itself differs from them by rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ftlab.errors import ConfigError
from ftlab.heads import body_of
from ftlab.quantised import quantised_maps
from ftlab.strategies.targets import layer_list

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""What a row's hidden states may depend on."""
ADVICE = "set cache_features to false"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a frozen part ends.

    Args:
        body: The model without its head.
        layers: Its stack of layers.
        depth: How many of them are below the cut.
        beside: What a layer returns beside its states; None where it returns no tuple.
        below: Name → tensor of all that runs below the cut.
    """

    body: PreTrainedModel
    layers: nn.ModuleList
    depth: int
    beside: tuple[None, ...] | None
    below: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The hidden states of some rows.

    Args:
        states: (N, D) of all tokens of all rows.
        places: The bytes of a row's tokens → where its states begin.
    """

    states: Tensor
    places: dict[bytes, int]


def refused(why: str) -> ConfigError:
    """The error that says why nothing can be kept."""
    return ConfigError(f"cache_features: {why}; {ADVICE}.")


@dataclass
class _Seen:
    """What one forward pass shows: the modules that have run, and which layers neither train nor draw."""

    done: list[nn.Module] = field(default_factory=list)
    frozen: int = 0
    draws: bool = False
    beside: tuple[None, ...] | None = None
    over: bool = False


def find_cut(model: nn.Module, forward: Any) -> Cut:
    """How much of a model's beginning is the same function of a row in every run.

    Args:
        model: What a strategy returned, in train mode.
        forward: Runs it on a batch, with gradients.

    Raises:
        ConfigError: Nothing of it.
    """
    from transformers import PreTrainedModel  # two seconds, which a wrong configuration need not wait for

    if quantised_maps(model):
        raise refused("the base is quantised")
    owner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    body = owner and body_of(owner)
    if not isinstance(body, PreTrainedModel):
        raise refused(f"{type(model).__name__} is no model of transformers with a body")
    layers = layer_list(body)[1]
    seen = _watch(body, layers, forward)
    if not seen.frozen:
        name = next((name for name, p in body.named_parameters() if p.requires_grad), "something")
        raise refused(f"{name} trains, in the first layer or below it")
    if seen.draws:
        raise refused("dropout is active below what trains, so that a row has other hidden states each time")
    return Cut(body=body, layers=layers, depth=seen.frozen, beside=seen.beside, below=_tensors(body, layers, seen.done))


def _watch(body: nn.Module, layers: nn.ModuleList, forward: Any) -> _Seen:
    """What the last pass through the body shows; a task may look at the model without gradients first."""
    device = next(body.parameters()).device
    passes, start = [_Seen()], _random(device)
    stack = {id(layer) for layer in layers}

    def begin(module: nn.Module, inputs: object) -> None:
        passes.append(_Seen())

    def after(module: nn.Module, inputs: object, output: object) -> None:
        seen = passes[-1]
        seen.over = seen.over or (id(module) in stack and tensor_of(output).requires_grad)
        if seen.over:
            return
        seen.done.append(module)
        if id(module) in stack:
            if seen.frozen == len(layers) or module is not layers[seen.frozen]:
                raise refused("the model runs its layers in an order of its own")
            seen.frozen += 1
            seen.beside = output[1:] if isinstance(output, tuple) else None
            seen.draws = not torch.equal(start, _random(device))

    handles = [module.register_forward_hook(after) for module in body.modules()]
    handles.append(body.register_forward_pre_hook(begin))
    try:
        with torch.enable_grad():
            forward()
    finally:
        _set_random(device, start)
        for handle in handles:
            handle.remove()
    return passes[-1]


def tensor_of(output: object) -> Tensor:
    """The hidden states in what a layer returns.

    Raises:
        ConfigError: It returns more than those.
    """
    if isinstance(output, tuple) and all(other is None for other in output[1:]):
        output = output[0]
    if not isinstance(output, Tensor):
        raise refused("the model's layers return more than hidden states")
    return output


def _random(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _tensors(body: nn.Module, layers: nn.ModuleList, done: list[nn.Module]) -> dict[str, Tensor]:
    """What has been used when the last frozen layer was done; of a module of which a part was used, what it holds itself."""
    stack = {id(layer) for layer in layers}
    last = max(place for place, module in enumerate(done) if id(module) in stack)
    used = {id(inner) for module in done[: last + 1] for inner in module.modules()}
    found: dict[str, Tensor] = {}
    for name, module in body.named_modules():
        if any(id(inner) in used for inner in module.modules()):
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            found |= {f"{name}.{leaf}": tensor for leaf, tensor in own}
    return found


class Skipping:
    """Puts states in the place of the layers below a cut, or notes them.

    Args:
        cut: The cut.
        tables: Where states are looked for, the first one first.
    """

    def __init__(self, cut: Cut, tables: list[Table]) -> None:
        self.cut, self.tables = cut, tables
        self.current: Tensor | None = None
        self.lengths: list[int] = []
        self.noted: dict[bytes, Tensor] | None = None
        self._keys: list[bytes] = []
        self._handles: list[RemovableHandle] = []
        self._before_us: dict[nn.Module, object] = {}

    def install(self) -> None:
        """Begin."""
        body, layers = self.cut.body, self.cut.layers
        self._handles = [
            body.register_forward_pre_hook(self._before, with_kwargs=True),
            body.register_forward_hook(self._after),
            layers[self.cut.depth - 1].register_forward_hook(self._note),
        ]
        self._before_us = {layer: layer.__dict__["forward"] for layer in layers if "forward" in layer.__dict__}
        for place, layer in enumerate(layers):
            layer.forward = self._instead(layer.forward, place)

    def remove(self) -> None:
        """End; the model is as before."""
        for handle in self._handles:
            handle.remove()
        for layer in self.cut.layers:
            del layer.forward
        for layer, forward in self._before_us.items():
            layer.forward = forward  # type: ignore[assignment]  # a function
        self._handles = []

    def _instead(self, original: Any, place: int) -> Any:
        def forward(hidden_states: Tensor, *values: object, **named: object) -> object:  # a layer of any family
            above = place >= self.cut.depth
            if (self.noted is None and (above or self.current is None)) or (self.noted is not None and not above):
                return original(hidden_states, *values, **named)
            states = hidden_states if self.current is None or place else self.current
            return states if self.cut.beside is None else (states, *self.cut.beside)

        return forward

    def _before(self, body: nn.Module, values: tuple[object, ...], named: dict[str, object]) -> None:
        inputs = inspect.signature(type(body).forward).bind_partial(body, *values, **named).arguments
        inputs |= inputs.pop("kwargs", {})
        given = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        odd = given.keys() - INPUTS
        if odd or "input_ids" not in given:
            raise refused(f"the model is called with {', '.join(sorted(odd)) or 'no input_ids'}")
        self._keys, self.lengths = keys_of(given)
        if self.noted is None:
            self.current = self._looked_up(given["input_ids"])

    def _looked_up(self, ids: Tensor) -> Tensor:
        first = self.tables[0].states
        found = first.new_zeros(*ids.shape, first.shape[1])
        for row, (key, length) in enumerate(zip(self._keys, self.lengths, strict=True)):
            table = next((t for t in self.tables if key in t.places), None)
            if table is None:
                raise refused("a batch holds a row that is in neither split")
            place = table.places[key]
            found[row, :length] = table.states[place : place + length]
        return found.to(ids.device)

    def _note(self, layer: nn.Module, values: object, output: object) -> None:
        if self.noted is not None:
            for key, length, states in zip(self._keys, self.lengths, tensor_of(output), strict=True):
                self.noted.setdefault(key, states[:length].detach().cpu().clone())

    def _after(self, body: nn.Module, values: object, output: object) -> None:
        self.current = None


def keys_of(given: Mapping[str, Tensor]) -> tuple[list[bytes], list[int]]:
    """The bytes that tell rows apart, and how many tokens each has.

    Args:
        given: `input_ids`, `attention_mask` and `token_type_ids` (B, T), as far as they are there.

    Raises:
        ConfigError: Rows are not padded on the right.
    """
    ids = given["input_ids"].cpu().numpy()
    mask = given.get("attention_mask")
    lengths = [ids.shape[1]] * len(ids) if mask is None else [int(n) for n in mask.sum(1)]
    if mask is not None and (mask.ndim != 2 or any(not bool(row[:n].all()) for row, n in zip(mask, lengths, strict=True))):
        raise refused("rows are not padded on the right alone")
    kinds = given.get("token_type_ids")
    others = None if kinds is None else kinds.cpu().numpy()
    rows = [ids[i, :n].tobytes() + (b"" if others is None else others[i, :n].tobytes()) for i, n in enumerate(lengths)]
    return rows, lengths


@contextmanager
def noting(cut: Cut) -> Iterator[dict[bytes, Tensor]]:
    """Collect the states of every row that the model is run on, without gradients; what is above the cut is left out."""
    skipping = Skipping(cut, [])
    skipping.noted = {}
    skipping.install()
    try:
        with torch.no_grad():
            yield skipping.noted
    finally:
        skipping.remove()
