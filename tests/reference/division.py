"""A hand-written loop: the gradient of one big batch, with nothing of ftlab between the model and `backward`.

Kept as the second implementation that `test_division.py` compares ftlab's windows with. Run it alone to see the figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

TEXTS = [
    "a b",
    "the quick brown fox jumps over the lazy dog",
    "one",
    "lists are mutable sequences, typically used to store items",
    "x = 1",
    "for each name in a module the loader finds its spec",
    "return",
    "None is returned when nothing was found here",
]


def tiny_llama() -> str:
    """The folder of the backbone that ships with ftlab."""
    import ftlab

    return str(Path(ftlab.__file__).parent / "assets" / "tiny-llama")


def rows(ids: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, mask and labels."""
    longest = max(map(len, ids))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return padded, mask, padded.masked_fill(mask == 0, -100)


def big_batch_gradient(ids: list[list[int]], folder: str) -> tuple[float, dict[str, Tensor]]:
    """Mean token loss over all rows, and its gradient by every parameter."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    padded, mask, labels = rows(ids)
    logits = model(input_ids=padded, attention_mask=mask).logits
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


if __name__ == "__main__":
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama())
    encoded = [tokenizer(t)["input_ids"] + [tokenizer.eos_token_id] for t in TEXTS]
    value, gradient = big_batch_gradient(encoded, tiny_llama())
    norm = torch.stack([g.norm() for g in gradient.values()]).norm()
    sys.stdout.write(f"loss {value:.8f}, gradient norm {norm:.8f}, {len(gradient)} tensors\n")
