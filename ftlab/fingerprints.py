"""What a checkpoint rests on but does not hold: the base, the tokenizer and the training rows, each as a short hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftlab.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = 4096
"""Words per tensor whose places count too; every word counts in the sum."""

_MEND = {
    "base": "give model.backbone the weights and the revision that the run began with",
    "tokenizer": "give model.backbone the tokenizer that the run began with",
    "data": "give data the rows that the run began with, start a new run, or add --allow-data-change",
}


def base_fingerprint(state: Mapping[str, Tensor], leave_out: Container[str]) -> str:
    """A hash of names, shapes, types and contents.

    Any single change of a number changes the sum over its tensor; rows that changed places are seen in a sample.
    It reads every tensor once and costs what reading it costs.

    Args:
        state: Name → tensor.
        leave_out: Names of tensors whose contents do not matter, such as fresh heads.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        content: object = None if name in leave_out else _content(tensor.detach())
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype), content]).encode())
    return digest.hexdigest()


def _content(tensor: Tensor) -> list[object]:
    wide, rest = words(tensor)
    sample = wide[:: max(1, len(wide) // _SAMPLE)].cpu().numpy().tobytes() + rest.cpu().numpy().tobytes()
    return [int(wide.sum()), hashlib.sha256(sample).hexdigest()]


def words(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of a tensor as int64, and the bytes that are left over."""
    bits = tensor.contiguous().flatten().view(torch.uint8)
    if bits.storage_offset() % 8:
        bits = bits.clone()  # torch views whole words only where they begin on one
    whole = len(bits) // 8 * 8
    return bits[:whole].view(torch.int64), bits[whole:]


def rows_fingerprint(source: str, view: Mapping[str, object]) -> str:
    """A hash of a source's rows and of the part of them that is used."""
    return hashlib.sha256(json.dumps([source, view], sort_keys=True).encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything that decides which ids a text gets."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, object] = json.loads(backend.to_str()) if backend is not None else _python_state(tokenizer)
    # A call with truncation or padding leaves its settings in the backend; they are arguments, not identity.
    state.pop("truncation", None), state.pop("padding", None)
    special = json.dumps([type(tokenizer).__name__, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return hashlib.sha256((json.dumps(state, sort_keys=True) + special).encode("utf-8", "surrogatepass")).hexdigest()


def _python_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """A tokenizer written in Python keeps its rules in its arguments; paths among them are where it lies, not what it is."""
    plain = {k: v for k, v in tokenizer.init_kwargs.items() if isinstance(v, bool | int | float)}
    return {"vocabulary": tokenizer.get_vocab(), "arguments": plain}


def check(old: Mapping[str, object], new: Mapping[str, str], data_may_change: bool = False) -> bool:
    """Refuse a checkpoint that rests on something else.

    Args:
        old: Name → fingerprint, as stored.
        new: The same of this run; what is absent is not asked for.
        data_may_change: The rows may be others.

    Returns:
        Whether the rows are others.

    Raises:
        CheckpointError: One differs or was not stored.
    """
    for name in sorted(new):
        found = old.get(name)
        if found != new[name] and not (name == "data" and data_may_change):
            raise CheckpointError(
                f"the checkpoint rests on the {name} {str(found)[:12]}, this run has {new[name][:12]}; {_MEND[name]}."
            )  # fmt: skip
    return "data" in new and old.get("data") != new["data"]
