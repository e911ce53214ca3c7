"""What a checkpoint holds and what is asked of it before it is loaded: owned tensors, and a stamp that says whose they are."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

import ftlab
from ftlab import origins
from ftlab.errors import CheckpointError, nearest
from ftlab.spec import spec_of as spec_of

STAMP = "ftlab"
FORMAT = 2
"""Counts up whenever a stamp's content changes."""
_KEYS = {"spec": Mapping, "fingerprints": Mapping, "rng": list, "base_figures": Mapping, "packages": Mapping, "settings": Mapping}
"""What a stamp holds beside format and version."""


def stamp(spec: Mapping[str, object], owned: Iterable[str]) -> dict[str, object]:
    """What is stored beside the tensors."""
    packages = origins.versions(origins.class_paths(spec))
    return {"format": FORMAT, "version": ftlab.__version__, "packages": packages, "spec": dict(spec), "owned": sorted(owned)}


def keep_owned(state: dict[str, Tensor], owned: frozenset[str]) -> dict[str, Tensor]:
    """The tensors of `state` that the run owns.

    Raises:
        CheckpointError: One of them is missing.
    """
    missing = sorted(owned - state.keys())
    if missing:
        raise CheckpointError(f"the model has no tensor '{missing[0]}', which its strategy says it owns; mend the strategy's owned().")
    return {name: tensor for name, tensor in state.items() if name in owned}


def verify(checkpoint: Mapping[str, Any], spec: Mapping[str, object], owned: Mapping[str, Tensor], free: Collection[str] = ()) -> None:
    """Refuse a checkpoint that is not exactly of this model.

    Args:
        checkpoint: What was loaded.
        spec: The model's own, as in its stamp.
        owned: Name → tensor of the model, for every tensor that the checkpoint must hold.
        free: Dotted keys of the spec that may differ.

    Raises:
        CheckpointError: It has no stamp, another spec, or other tensors; the message names the first difference.
    """
    found = checkpoint.get(STAMP)
    if not isinstance(found, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise CheckpointError("the checkpoint was not written by ftlab; give --ckpt_path a file from a run's checkpoints folder.")
    if found.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {found.get('format')} of ftlab {found.get('version')}, this is format {FORMAT} "
            f"of ftlab {ftlab.__version__}; use the version that wrote it."
        )
    for key, kind in _KEYS.items():
        if not isinstance(found.get(key), kind):
            raise CheckpointError(f"the checkpoint's stamp holds no {key}; use another checkpoint of the run.")
    for key, old, new in differences(found["spec"], spec):
        if key not in free:
            raise CheckpointError(
                f"the checkpoint has {key} {old!r}, the configuration {new!r}; use the config.yaml of the checkpoint's run."
            )
    tensors = checkpoint["state_dict"]
    stored = frozenset(tensors)
    for name in sorted(owned.keys() - stored):
        raise CheckpointError(f"the checkpoint lacks the tensor '{name}'; it holds {', '.join(nearest(name, stored)) or 'none like it'}.")
    for name in sorted(stored - owned.keys()):
        raise CheckpointError(f"the checkpoint holds the tensor '{name}', which this model does not own; use the configuration of its run.")
    for name, own in owned.items():
        _verify_tensor(name, tensors[name], own)
    if not _finite(checkpoint.get("optimizer_states")):
        raise CheckpointError("the checkpoint's optimizer_states hold numbers that are not finite; use an earlier checkpoint of the run.")


def _finite(state: object) -> bool:
    """Whether every number in nested plain types is finite."""
    if isinstance(state, Mapping):
        return all(map(_finite, state.values()))
    if isinstance(state, list | tuple):
        return all(map(_finite, state))
    if isinstance(state, Tensor):
        return bool(torch.isfinite(state).all())
    return not isinstance(state, float) or math.isfinite(state)


def _verify_tensor(name: str, stored: object, own: Tensor) -> None:
    if not isinstance(stored, Tensor) or stored.shape != own.shape or stored.dtype != own.dtype:
        held = f"{stored.dtype} {tuple(stored.shape)}" if isinstance(stored, Tensor) else type(stored).__name__
        raise CheckpointError(
            f"the checkpoint's '{name}' is {held}, the model's {own.dtype} {tuple(own.shape)}; use its run's config.yaml."
        )
    # A model's own buffer may hold infinities, as masks do.
    if not torch.isfinite(stored).all() and torch.isfinite(own).all():
        raise CheckpointError(f"the checkpoint's '{name}' holds numbers that are not finite; use an earlier checkpoint of the run.")


def differences(old: Any, new: Any, key: str = "") -> Iterable[tuple[str, object, object]]:
    """Where two specs differ: (dotted key, old value, new value)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(n for n in new if n not in old)]:
            inner = key if name == "init_args" else f"{key}.{name}".lstrip(".")
            yield from differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield key.removesuffix(".class_path"), old, new
