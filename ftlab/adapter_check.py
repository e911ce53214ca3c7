"""Opening a PEFT folder of any origin: nothing is put into the model before every tensor has been checked against it.

PEFT itself loads an adapter that lacks tensors, holds others, overwrites weights of the base, or is not a number.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ftlab.adapters import CONFIG, WEIGHTS, expected_tensors, without_notice
from ftlab.errors import CheckpointError, SecurityError, nearest
from ftlab.folders import read_record

if TYPE_CHECKING:
    from peft import PeftConfig

KNOWN_TYPES = (
    "ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA",
    "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD",
    "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip
"""Values of `peft_type` that ftlab opens: methods that inject layers and need nothing from other folders."""

_IGNORED = ("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode")
"""Entries that name other models, other people's classes or who wrote the file: the caller says what the base is."""
_LARGEST_HEADER = 2**25
_PREFIX = "base_model.model."


def open_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """`model` with the adapter of `folder` on it, in evaluation mode.

    Args:
        model: The HF model that the adapter belongs to; unchanged where the adapter is refused.
        folder: A PEFT folder.

    Raises:
        CheckpointError: The adapter is damaged, of another model, or of a kind that ftlab does not open.
        SecurityError: It is a pickle, names foreign code, or would overwrite weights of the base.
    """
    from peft import PeftModel

    config = check_adapter(model, folder)
    device = str(next(model.parameters()).device)
    with without_notice():
        opened: nn.Module = PeftModel.from_pretrained(model, folder, config=config, torch_device=device)
    return opened.eval()


def check_adapter(model: nn.Module, folder: Path) -> PeftConfig:
    """The configuration of an adapter that fits `model` and whose tensors are whole; see `open_adapter`."""
    config = read_config(folder)
    _refuse_pickle(folder)
    read_record(folder)
    found = _shapes(folder / WEIGHTS)
    expected = {name: tuple(t.shape) for name, t in expected_tensors(model, config).items()}
    _compare(found, expected, {_PREFIX + name for name in model.state_dict()}, config)
    _check_finite(folder / WEIGHTS)
    return config


def read_config(folder: Path) -> PeftConfig:
    """The adapter's configuration, without what names code or other models.

    Raises:
        CheckpointError: There is none, it cannot be read, or PEFT here does not know an entry or the type.
        SecurityError: It names foreign code.
    """
    entries = _entries(folder / CONFIG)
    kind = entries.pop("peft_type", None)
    if kind not in KNOWN_TYPES:
        others = "the types that ftlab opens are LORA and PEFT's other methods that inject layers"
        raise CheckpointError(f"{folder / CONFIG} has peft_type {kind!r:.60}; {others}, so train it anew with one of them.")
    return _config(str(kind), entries, folder / CONFIG)


def _entries(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {CONFIG}, so it is no whole adapter; export it again.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); export the adapter again.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} holds {type(entries).__name__}, not an object; export the adapter again.")
    return entries


def _config(method: str, entries: dict[str, Any], path: Path) -> PeftConfig:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    if entries.get("megatron_config") is not None or entries.get("megatron_core", "megatron.core") != "megatron.core":
        raise SecurityError(f"{path} names a package to import (megatron_core), which ftlab never does for an adapter; remove the entry.")
    plain = {name: value for name, value in entries.items() if name not in _IGNORED}
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[method]]
    fields = {f.name for f in dataclasses.fields(kind)}
    for name, value in plain.items():
        if name not in fields and value:
            close = " or ".join(nearest(name, fields)) or "none like it"
            raise CheckpointError(f"{path} sets {name}, which this PEFT does not know, only {close}; install the PEFT that wrote it.")
    try:
        config: PeftConfig = kind(**{name: value for name, value in plain.items() if name in fields})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is refused by PEFT: {str(error).splitlines()[0]}") from error
    config.inference_mode = True
    return config


def _refuse_pickle(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    if pickled:
        raise SecurityError(f"{folder / pickled[0]} is a pickle, which can run code while it is read; convert it to {WEIGHTS}.")
    raise CheckpointError(f"{folder} has no {WEIGHTS}, so it is no whole adapter; export it again.")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a safetensors file, from its header alone."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, _LARGEST_HEADER):
                raise CheckpointError(f"{path} has {size} bytes, but its header alone claims {length}; it was cut, so export it again.")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        shapes = {str(name): tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path} has {size} bytes and no header of safetensors; it was cut, so export it again.") from error
    if end != size:
        raise CheckpointError(f"{path} has {size} bytes instead of {end}; it was cut or damaged, so export it again.")
    return shapes


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], base: set[str], config: PeftConfig) -> None:
    extra = sorted(found.keys() - expected.keys())
    for name in extra:
        if name.replace(".base_layer.", ".") in base or name in base:
            raise SecurityError(f"the adapter holds '{name}', a weight of the base model, which it would overwrite; do not use this file.")
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise CheckpointError(f"the adapter lacks {_listed(missing)}; it is damaged or of another model.")
    if extra:
        raise CheckpointError(f"the adapter holds {_listed(extra)}, which its configuration does not call for; it is of another model.")
    for name, shape in expected.items():
        if found[name] != shape:
            _refuse_shape(name, found[name], shape, config)


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(f"'{n}'" for n in names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...], config: PeftConfig) -> None:
    axis = {"lora_A": 0, "lora_B": 1}.get(name.split(".")[-2])
    if axis is not None and len(found) == 2 and found[1 - axis] == wanted[1 - axis]:
        ranks = f"rank is {wanted[axis]} in {CONFIG} and {found[axis]} in {WEIGHTS}"
        raise CheckpointError(f"the adapter's {ranks} ('{name}'); export it again.")
    raise CheckpointError(f"the adapter's '{name}' is {found}, and this model takes {wanted}; name the model that it belongs to.")


def _check_finite(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            tensor: Tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise CheckpointError(f"the adapter's '{name}' holds NaN or infinity; train or export it again.")
