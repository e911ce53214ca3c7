from __future__ import annotations

import numpy as np
import pytest
import torch

from ftlab.rows import Stored
from ftlab.tasks.collate import pad
from ftlab.testing.tokenizer import byte_tokenizer


def stored(*fields: dict[str, list[int]]) -> list[Stored]:
    """As the token cache gives them: 32 bits, and not to be written to."""
    examples = [{name: np.array(values, dtype=np.int32) for name, values in f.items()} for f in fields]
    for example in examples:
        for array in example.values():
            array.flags.writeable = False
    return examples  # type: ignore[return-value]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_what_the_tokenizer_would_do_on_the_right(side: str) -> None:
    tokenizer = byte_tokenizer(pairs=True, segments=True)
    tokenizer.padding_side = side
    ours = pad(
        stored(*({"input_ids": e["input_ids"], "token_type_ids": e["token_type_ids"]} for e in (tokenizer(t) for t in ("one", "a b c")))),
        tokenizer,
    )
    tokenizer.padding_side = "right"
    theirs = tokenizer(["one", "a b c"], padding=True, return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, theirs[name])


def test_rows_of_one_length_need_no_mask() -> None:
    padded = pad(stored({"input_ids": [5, 6]}, {"input_ids": [7, 1]}), byte_tokenizer(pairs=False))
    assert {name: t.tolist() for name, t in padded.items()} == {"input_ids": [[5, 6], [7, 1]]}
