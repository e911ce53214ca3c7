"""A pretrained base that is read once and lies ready in every fork: bit for bit the model that the trial would have read itself."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ftlab.fingerprints import base_fingerprint
from ftlab.quantised import quantised_maps, quantised_names
from ftlab.weights import Read, Reading, from_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_INITIALISED = "_is_hf_initialized"
"""By this mark of transformers 5 a tensor that a file has filled, and a module that is done with, is left alone."""


class NotHeldError(Exception):
    """Why a base is read anew for each trial."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A base in memory.

    Args:
        identity: Of the reading that it answers.
        read: The model and its report.
        fresh: Names of the tensors that no file filled.
        fingerprint: Of all the others.
    """

    identity: str
    read: Read
    fresh: frozenset[str]
    fingerprint: str

    def take(self) -> Read:
        """The model, its fresh weights drawn anew from the generators as they are now.

        Raises:
            NotHeldError: It is not what was read.
        """
        model = self.read[0]
        renew(model)
        if _fingerprint(model, self.fresh) != self.fingerprint:
            raise NotHeldError("its copy in memory was changed")
        return self.read


def hold(reading: Reading) -> Held:
    """Read a base, and prove that its fresh weights can be drawn anew as reading it draws them.

    Raises:
        NotHeldError: They cannot, or the model does not lie in this process's memory.
    """
    _require_memory(reading.arguments)
    known = identity(reading)
    with _aside():
        before = _generators()
        read = from_files(reading)
        model, after = read[0], _generators()
        drawn = {name: tensor.clone() for name, tensor in _fresh(model)}
        _set(before)
        renew(model)
        again = dict(_fresh(model))
        if not _same(after, _generators()) or drawn.keys() != again.keys() or any(_differ(drawn[n], again[n]) for n in drawn):
            raise NotHeldError(f"{type(model).__name__} does not draw its fresh weights the same way twice")
        fingerprint = _fingerprint(model, drawn.keys())
    return Held(identity=known, read=read, fresh=frozenset(drawn), fingerprint=fingerprint)


def renew(model: PreTrainedModel) -> None:
    """Initialise again whatever was initialised and not read."""
    packed = {id(module) for module in quantised_maps(model).values()}
    for module in model.modules():
        if id(module) not in packed:  # these were marked before anything was initialised
            module.__dict__.pop(_INITIALISED, None)
    model.initialize_weights()


def _fresh(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not getattr(tensor, _INITIALISED, False):
            yield name, tensor.detach()


def _fingerprint(model: PreTrainedModel, fresh: Set[str]) -> str:
    return base_fingerprint(model.state_dict(), set(fresh) | quantised_names(model))


def _differ(first: Tensor, second: Tensor) -> bool:
    return not torch.equal(first.flatten().view(torch.uint8), second.flatten().view(torch.uint8))


def identity(reading: Reading) -> str:
    """Everything that the read model depends on, as text.

    Raises:
        NotHeldError: Something among it cannot be written down.
    """
    config = reading.config
    folder = Path(reading.location)
    commit = getattr(config, "_commit_hash", None)
    if not folder.is_dir() and commit is None:
        raise NotHeldError("its revision is not known")
    stats = {p.name: p.stat() for p in sorted(folder.iterdir()) if p.is_file()} if folder.is_dir() else {}
    parts = {
        "class": reading.auto_class,
        "location": str(folder.resolve()) if stats else reading.location,
        "commit": commit,
        "files": {name: [s.st_size, s.st_mtime_ns, s.st_ino] for name, s in stats.items()},
        "config": [type(config).__name__, config._attn_implementation, _plain(config)],
        "arguments": _plain(reading.arguments),
    }
    return json.dumps(parts, sort_keys=True)


def _plain(value: Any) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if hasattr(value, "to_dict"):
        return [type(value).__name__, _plain(value.to_dict())]
    raise NotHeldError(f"a {type(value).__name__} among what it is read with cannot be compared")


def _require_memory(arguments: Mapping[str, object]) -> None:
    """Nothing may begin to use a GPU in a process that is forked."""
    devices = arguments.get("device_map")
    if devices is None:
        return
    named = devices.values() if isinstance(devices, Mapping) else [devices]
    if not all(str(d) == "cpu" for d in named):
        raise NotHeldError(f"it is read onto {', '.join(str(d) for d in named)}")


@contextmanager
def _aside() -> Iterator[None]:
    """Random numbers, threads and variables afterwards are as before."""
    before, threads, word = _generators(), torch.get_num_threads(), os.environ.get("HF_DEACTIVATE_ASYNC_LOAD")
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # transformers does not wait for the end of the threads it reads with
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
        os.environ.pop("HF_DEACTIVATE_ASYNC_LOAD")
        if word is not None:
            os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = word
        _set(before)


_Generators = tuple[Tensor, object, Any]


def _generators() -> _Generators:
    return torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)


def _set(states: _Generators) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])  # type: ignore[arg-type]  # what getstate returned
    np.random.set_state(states[2])


def _same(first: _Generators, second: _Generators) -> bool:
    numpy = all(np.array_equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    return torch.equal(first[0], second[0]) and first[1] == second[1] and numpy
