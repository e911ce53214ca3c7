"""ftlab's own adapter folder: the tensors that a strategy owns, and the strategy; for methods that no other format has a place for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ftlab.errors import CheckpointError
from ftlab.spec import spec_of

if TYPE_CHECKING:
    from ftlab.strategies.base import TuningStrategy

TENSORS = "ftlab_adapter.safetensors"
TUNING = "ftlab_adapter.json"
_FORMAT = 1


def save_native(tuning: TuningStrategy, model: nn.Module, folder: Path) -> None:
    """Write what `tuning` owns of `model`, under the model's own names, and the strategy's class and arguments.

    The folder opens with `ftlab.load`, where the class is installed.
    """
    from safetensors.torch import save_file

    state = model.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(tuning.owned(model))}
    save_file(tensors, folder / TENSORS, {"format": "pt"})
    text = json.dumps({"format": _FORMAT, "tuning": spec_of(tuning)}, indent=2)
    (folder / TUNING).write_text(text + "\n", encoding="utf-8")


def read_tuning(folder: Path) -> object:
    """The strategy of a folder, as plain types.

    Raises:
        CheckpointError: It cannot be read, or a newer ftlab wrote it.
    """
    path = folder / TUNING
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        known, spec = int(entries["format"]), entries["tuning"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not say how the adapter was made ({type(error).__name__}); export the run again.") from error
    if known > _FORMAT:
        raise CheckpointError(f"{path} has format {known}, and this ftlab reads up to {_FORMAT}; install a newer ftlab.")
    found: object = spec
    return found


def fill(model: nn.Module, owned: frozenset[str], folder: Path) -> None:
    """Give the owned tensors of `model` the values of a folder.

    Raises:
        CheckpointError: The folder lacks a tensor, holds another one, or one of another shape or that is not finite; nothing is changed.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / TENSORS)
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    for name in sorted(owned ^ tensors.keys()):
        what = "lacks" if name in owned else "holds"
        raise CheckpointError(f"{folder / TENSORS} {what} the tensor '{name}', unlike this model; it is of another one, or damaged.")
    for name, tensor in tensors.items():
        _check(name, tensor, state[name])
    for name, tensor in tensors.items():
        state[name].data = state[name].data.to(tensor.dtype)
        state[name].data.copy_(tensor)


def _check(name: str, tensor: Tensor, own: Tensor) -> None:
    if tensor.shape != own.shape:
        raise CheckpointError(f"the adapter's '{name}' is {tuple(tensor.shape)}, this model takes {tuple(own.shape)}; name its own base.")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise CheckpointError(f"the adapter's '{name}' holds NaN or infinity; train or export it again.")
