"""Padding of stored examples into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ftlab.rows import Stored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pad(examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """`input_ids`, `token_type_ids` where stored, and `attention_mask` where anything is padded, each (B, T), padded on the right.

    A mask of ones says nothing, and finding that out on a GPU would make the model wait for it.

    The right side is chosen for every model: positions then start at 0 without position ids, and a row's outputs do not
    depend on how long its neighbours are.
    """
    lengths = [len(e["input_ids"]) for e in examples]
    shape = (len(examples), max(lengths))
    filler = tokenizer.pad_token_id
    inputs = {"input_ids": np.full(shape, 0 if filler is None else filler, dtype=np.int64)}
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = np.zeros(shape, dtype=np.int64)
    for name, array in inputs.items():
        for row, example, length in zip(array, examples, lengths, strict=True):
            row[:length] = example[name]
    if min(lengths) < max(lengths):
        inputs["attention_mask"] = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return {name: torch.from_numpy(array) for name, array in inputs.items()}
