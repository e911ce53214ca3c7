"""Finding the two halves of a transformer layer, attention and MLP, by what it computes on four tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from ftlab.errors import ConfigError, suggest
from ftlab.probe import probe_inputs, probing
from ftlab.strategies.targets import layer_list


@dataclass(frozen=True)
class Place:
    """A function inside a layer: it reads what `first` is given and ends with what `last` returns.

    Args:
        name: Of `last`.
        first: The module that it begins with.
        last: The module that it ends with.
        reads: Width of its input.
        width: Width of its output.
    """

    name: str
    first: nn.Module
    last: nn.Module
    reads: int
    width: int


@dataclass(frozen=True)
class _Call:
    name: str
    module: nn.Module
    group: int  # neighbouring calls on one tensor, such as query, key and value, have the same number
    reads: int
    width: int


def chosen_layers(model: nn.Module, layers: Collection[int] | None) -> tuple[str, nn.ModuleList, list[int]]:
    """Name of the stack of layers, the stack, and the numbers in it that `layers` means; None is all.

    Raises:
        ConfigError: A number is not in the stack, or there is no single stack.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        kind, need = type(model).__name__, "this method takes one stack of layers"
        raise ConfigError(f"model.tuning: {kind} has an encoder and a decoder, and {need}; choose another, such as LoRA.")
    stack, modules = layer_list(model)
    wrong = [i for i in layers or () if not 0 <= i < len(modules)]
    if wrong:
        raise ConfigError(f"model.tuning.layers has {wrong[0]}, but {stack} has layers 0 to {len(modules) - 1}.")
    return stack, modules, list(range(len(modules))) if layers is None else sorted(set(layers))


def halves(model: nn.Module, layers: Collection[int] | None) -> list[tuple[Place, Place]]:
    """The output projection of the attention, and the MLP, of each layer.

    Both are known by the order of the linear maps that a layer calls, maps on one tensor being taken together. Whatever comes before,
    the last three are the attention's output, what the MLP begins with (two where it is gated) and what it ends with.

    Args:
        model: A HF model.
        layers: Numbers of the layers, or None for all.

    Raises:
        ConfigError: A layer computes something else, such as a mixture of experts.
    """
    stack, modules, numbers = chosen_layers(model, layers)
    maps = {f"{stack}.{i}": dict(_maps(f"{stack}.{i}", modules[i])) for i in numbers}
    calls = _calls(model, {name: module for each in maps.values() for name, module in each.items()})
    found = []
    for name, own in maps.items():
        called = [call for call in calls if call.name in own]
        pair = _pair(called) if len(called) == len(own) and not _has_experts(model.get_submodule(name)) else None
        if pair is None:
            raise ConfigError(
                f"model.tuning: attention and MLP of {type(model).__name__}'s {name} cannot be told apart; name the modules of a layer "
                f"with attention_modules and mlp_modules: it has {', '.join(n for n, _ in modules[numbers[0]].named_children())}."
            )
        found.append(pair)
    return found


def named_places(model: nn.Module, names: Iterable[str], layers: Collection[int] | None, key: str) -> list[Place]:
    """The modules that have one of `names` inside their layer.

    Args:
        model: A HF model.
        names: Names as the layer has them, such as `self_attn` or `output.dense`.
        layers: Numbers of the layers, or None for all.
        key: What an error message calls `names`.

    Raises:
        ConfigError: No layer has a module of some name, or the model does not call it.
    """
    stack, modules, numbers = chosen_layers(model, layers)
    known = {i: [n for n, _ in modules[i].named_modules() if n] for i in numbers}
    for name in names:
        everything = {n for own in known.values() for n in own}
        if name not in everything:
            raise ConfigError(f"{key} has '{name}', which no layer has; {suggest(name, everything, 5)}")
    wanted = {f"{stack}.{i}.{n}": modules[i].get_submodule(n) for i in numbers for n in known[i] if n in set(names)}
    calls = {call.name: call for call in _calls(model, wanted)}
    for name in wanted:
        if name not in calls:
            raise ConfigError(f"{key} means '{name}', which the model does not call on every token; name the module around it.")
    return [Place(n, c.module, c.module, c.reads, c.width) for n, c in calls.items()]


def _maps(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear maps in a module, whatever their class: they have a matrix. What adapts one is taken for the map itself."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _maps(f"{name}.{child_name}", child)


def _has_experts(layer: nn.Module) -> bool:
    """Whether it holds matrices that are no map's own, or modules of which some may be left out."""
    lists = any(isinstance(m, nn.ModuleList) and len(m) > 1 for m in layer.modules())
    return lists or any(p.ndim > 2 for p in layer.parameters())


def _calls(model: nn.Module, wanted: Mapping[str, nn.Module]) -> list[_Call]:
    """Which of the modules the model calls, in the order of their first calls."""
    found: dict[str, _Call] = {}
    latest: list[Tensor] = []  # held, because a freed tensor's identity is used again

    def note(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        seen, out = first_tensor(given), first_tensor(output)
        if name not in found and seen is not None and out is not None:
            group = len(found) if not latest or latest[0] is not seen else next(reversed(found.values())).group
            found[name] = _Call(name, module, group, seen.shape[-1], out.shape[-1])
            latest[:] = [seen]

    def hook(name: str) -> Any:
        return lambda module, args, kwargs, output: note(name, module, (*args, *kwargs.values()), output)

    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in wanted.items()]
    try:
        with probing(model):
            model(**probe_inputs(model, model.config.get_text_config().vocab_size))  # type: ignore[union-attr, operator]
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def first_tensor(value: object) -> Tensor | None:
    """The first tensor of a module's arguments or of what it returned."""
    if isinstance(value, Tensor):
        return value
    return next((v for v in value if isinstance(v, Tensor)), None) if isinstance(value, tuple) else None


def _pair(calls: list[_Call]) -> tuple[Place, Place] | None:
    groups = [list(group) for _, group in groupby(calls, key=lambda call: call.group)]
    if len(groups) < 4 or len(groups[-3]) != 1 or len(groups[-1]) != 1:
        return None
    width = groups[0][0].reads
    attention, begin, end = groups[-3][0], groups[-2][0], groups[-1][0]
    if not width == attention.width == begin.reads == end.width:
        return None
    return (
        Place(attention.name, attention.module, attention.module, attention.reads, width),
        Place(end.name, begin.module, end.module, width, width),
    )
