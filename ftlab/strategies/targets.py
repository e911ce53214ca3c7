"""Finding sub-modules by what a configuration says; whatever matches nothing is an error."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.errors import ConfigError, suggest
from ftlab.growth import GrownLinear
from ftlab.heads import output_of


def linear_names(model: nn.Module) -> list[str]:
    """Every linear map of the model (`nn.Linear`, its quantised kin, GPT-2's `Conv1D`), by full name."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The stack of transformer layers, by name: the longest module list that is not inside another one, as experts are.

    Raises:
        ConfigError: The model has none.
    """
    stacks: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():  # parents come first
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer, _ in stacks):
            stacks.append((name, module))
    if not stacks:
        raise ConfigError(f"{type(model).__name__} has no list of layers; choose its parameters by pattern instead.")
    return max(stacks, key=lambda pair: len(pair[1]))


def match_targets(
    model: nn.Module,
    wanted: str | list[str],
    layers: Collection[int] | None,
    heads: Mapping[str, nn.Module],
    key: str = "model.tuning.target_modules",
) -> list[str]:
    """Full names of the linear maps that `wanted` means, outside the fresh heads.

    Args:
        model: The backbone.
        wanted: `all-linear` (all but the output embedding), a regular expression for whole names, or a list of last parts
            of names such as `q_proj`.
        layers: Numbers of the layers to stay within, or None for all.
        heads: Fresh modules, which are trained whole and are never a target.
        key: What an error message calls `wanted`.

    Raises:
        ConfigError: A name or the expression matches no linear map or one tied to an embedding, or a layer does not exist.
    """
    inside = tuple(f"{name}." for name in heads)
    linear = {_shown(model, n): n for n in linear_names(model) if n not in heads and not n.startswith(inside)}
    if wanted == "all-linear":
        output = output_of(model)
        beside = set(output.modules()) if output is not None else set()
        chosen = {n for n in linear if model.get_submodule(linear[n]) not in beside}
    elif isinstance(wanted, str):
        chosen = {n for n in linear if compiled(wanted, key).fullmatch(n)}
        if not chosen:
            raise ConfigError(f"{key} '{wanted}' matches no linear module; the model has {', '.join(leaf_names(linear))}.")
    else:
        chosen = set().union(*(_named(name, linear, key) for name in wanted))
    found = [linear[n] for n in linear if n in chosen]
    if layers is not None:
        found = _within(model, found, layers)
    if not found:
        raise ConfigError(f"{key} {wanted!r} leaves no linear module to adapt, layers being {layers}; choose other modules or layers.")
    _refuse_shared(model, found, key)
    return found


def _named(name: str, linear: Collection[str], key: str) -> set[str]:
    hits = {n for n in linear if n == name or n.endswith(f".{name}")}
    if not hits:
        raise ConfigError(f"{key} has '{name}', which matches no linear module; {suggest(name, leaf_names(linear), 5)}")
    return hits


def _shown(model: nn.Module, name: str) -> str:
    """The name a module had before its vocabulary grew, which is what a configuration says."""
    parent = name.rpartition(".")[0]
    return parent if isinstance(model.get_submodule(parent), GrownLinear) else name


def _refuse_shared(model: nn.Module, names: Iterable[str], key: str) -> None:
    shared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name in names:
        if id(model.get_submodule(name).weight) in shared:
            raise ConfigError(
                f"{key} means '{_shown(model, name)}', which shares its weight with the input embedding, "
                "so an update could not be merged; leave it out."
            )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one called `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def features(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear map; GPT-2's `Conv1D` and quantised maps have weights of other shapes."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def add_to_weight(module: nn.Module, delta: Tensor) -> None:
    """Add `delta` (out, in) to the weight of a linear map that is not quantised, rounded once."""
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    turned = delta.detach().T if isinstance(module, Conv1D) else delta.detach()
    weight.data = (weight.data.to(turned.dtype) + turned).to(weight.dtype)


def compiled(pattern: str, key: str) -> re.Pattern[str]:
    """A regular expression.

    Raises:
        ConfigError: It is not one.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key} '{pattern}' is not a regular expression: {error}.") from error


def leaf_names(names: Iterable[str]) -> list[str]:
    """The last parts of names, once each, sorted."""
    return sorted({name.rpartition(".")[2] for name in names})


def _within(model: nn.Module, names: list[str], layers: Collection[int]) -> list[str]:
    stack, modules = layer_list(model)
    wrong = [i for i in layers if not 0 <= i < len(modules)]
    if wrong:
        raise ConfigError(f"model.tuning.layers has {wrong[0]}, but {stack} has layers 0 to {len(modules) - 1}.")
    prefixes = tuple(f"{stack}.{i}." for i in layers)
    return [n for n in names if n.startswith(prefixes)]
