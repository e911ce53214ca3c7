"""Writing a whole model as Hugging Face has it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError
from ftlab.growth import GrownEmbedding, GrownLinear, put_in_place


def save_whole(model: nn.Module, folder: Path) -> None:
    """Write configuration and weights, with new tokens as ordinary rows of plain embeddings.

    Args:
        model: A HF model; as before when this returns.
        folder: Where to.

    Raises:
        ConfigError: It is not a HF model.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"{type(model).__name__} is not a model of transformers, so its strategy must write it; give the class a save().")
    with folded(model):
        model.save_pretrained(folder)


def is_plain(model: nn.Module) -> bool:
    """Whether `model` is a HF model that has, grown embeddings aside, the tensors that its class gives it."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return False
    with folded(model), torch.device("meta"):
        own = type(model)._from_config(copy.deepcopy(model.config)).state_dict().keys()
        return own == model.state_dict().keys() and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """`model` with plain embeddings that have the new rows, for the length of the block."""
    grown = model.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(grown, GrownEmbedding):
        yield
        return
    output = model.get_output_embeddings()  # type: ignore[operator]
    table, rows = grown.base, grown.base.weight
    tied = isinstance(output, GrownLinear) and output.base.weight is rows
    table.weight = nn.Parameter(_with_rows(rows, grown), requires_grad=False)
    table.num_embeddings = len(table.weight)
    model.set_input_embeddings(table)  # type: ignore[operator]
    try:
        with _folded_output(model, output, table.weight if tied else None):
            yield
    finally:
        table.weight, table.num_embeddings = rows, len(rows)
        model.set_input_embeddings(grown)  # type: ignore[operator]


@contextmanager
def _folded_output(model: nn.Module, grown: object, shared: nn.Parameter | None) -> Iterator[None]:
    if not isinstance(grown, GrownLinear):
        yield
        return
    linear, rows = grown.base, grown.base.weight
    linear.weight = nn.Parameter(_with_rows(rows, grown), requires_grad=False) if shared is None else shared
    linear.out_features = len(linear.weight)
    put_in_place(model, grown, linear)
    try:
        with _padded_biases(model, linear):
            yield
    finally:
        linear.weight, linear.out_features = rows, len(rows)
        put_in_place(model, linear, grown)


@contextmanager
def _padded_biases(model: nn.Module, linear: nn.Linear) -> Iterator[None]:
    """With zeros for new tokens at the end of the bias of `linear`, and of what a head of RoBERTa's or BERT's kin has beside it."""
    places = _bias_places(model, linear)
    longer = {p: nn.Parameter(F.pad(p.detach(), (0, len(linear.weight) - len(p))), requires_grad=False) for _, _, p in places}
    for module, leaf, bias in places:
        setattr(module, leaf, longer[bias])
    try:
        yield
    finally:
        for module, leaf, bias in places:
            setattr(module, leaf, bias)


def _bias_places(model: nn.Module, linear: nn.Linear) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Wherever the bias of `linear` stands, and where transformers would have it if the model's weights were tied."""
    found = dict(model.named_parameters(remove_duplicate=False))
    same = {name for name, p in found.items() if p is linear.bias}
    tied: dict[str, str] = getattr(model, "_tied_weights_keys", None) or {}
    same |= {source for target, source in tied.items() if target in same}
    split = ((name.rpartition("."), found[name]) for name in sorted(same & found.keys()))
    return [(model.get_submodule(parent), leaf, p) for (parent, _, leaf), p in split]


def _with_rows(old: Tensor, grown: GrownEmbedding | GrownLinear) -> Tensor:
    new = grown.new.weight.detach().to(old.dtype)
    return torch.cat([old.detach()[: grown.first], new, old.detach()[grown.first + len(new) :]])


def cast_files(folder: Path, dtype: torch.dtype) -> None:
    """Turn the floating-point tensors of every safetensors file in `folder` into `dtype`, one file at a time."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in load_file(path).items()}
        save_file(tensors, path, metadata)
        size += sum(t.numel() * t.element_size() for t in tensors.values())
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        entries = json.loads(index.read_text(encoding="utf-8"))
        entries["metadata"]["total_size"] = size
        index.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    config = folder / "config.json"
    if config.is_file():
        entries = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**entries, "dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n", encoding="utf-8")
