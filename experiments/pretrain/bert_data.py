"""Sentence pairs and masks as in Devlin et al. 2019, sections 3.1 and A.1; evaluation uses the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ftlab.data.sources.python_docs import Part, documents, in_split

IGNORE = -100
MASKED = 0.15
# A longer paragraph would leave no room for the second segment.
UNIT = 48
Units = list[list[int]]
Pair = tuple[list[int], list[int], int]


def tokenized(tokenizer: PreTrainedTokenizerBase, part: Part, split: str) -> list[Units]:
    """Each document of a split as paragraphs of token ids, which are the "sentences" of next-sentence prediction."""
    found = []
    for _, title, text in documents(part):
        if in_split(title, split, percent=10):
            ids = tokenizer(text.split("\n\n"), add_special_tokens=False, verbose=False)["input_ids"]
            found.append([row[i : i + UNIT] for row in ids for i in range(0, len(row), UNIT)])
    return found


def pairs(corpus: list[Units], length: int, dice: random.Random) -> list[Pair]:
    """One pass over the corpus as (first segment, second segment, 1 where the second is not the continuation).

    Args:
        corpus: The documents; a wrong continuation comes from another one.
        length: Tokens of both segments together, at most.
        dice: Where the cuts and the wrong continuations come from.
    """
    # Lengths are weights, so that a random continuation comes from as deep in a long document as a true one does.
    sizes = [sum(map(len, units)) for units in corpus]
    found = []
    for number, units in enumerate(corpus):
        start = dice.randrange(2)
        while start + 1 < len(units):
            cut = start + 1
            while cut + 1 < len(units) and sum(map(len, units[start : cut + 1])) <= length // 2:
                cut += 1
            swapped = dice.random() < 0.5
            other = number
            while swapped and other == number:
                other = dice.choices(range(len(corpus)), sizes)[0]
            source, at = (corpus[other], dice.randrange(len(corpus[other]))) if swapped else (units, cut)
            first = [token for unit in units[start:cut] for token in unit][: length // 2]
            second = [token for unit in source[at : at + 64] for token in unit][: length - len(first)]
            found.append((first, second, int(swapped)))
            start = cut if swapped else _end(units, cut, length - len(first))
    return found


def _end(units: Units, start: int, room: int) -> int:
    while start < len(units) and room > 0:
        room -= len(units[start])
        start += 1
    return start


def batches(found: list[Pair], size: int, tokenizer: PreTrainedTokenizerBase, dice: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Padded batches with fresh masks: `input_ids`, `token_type_ids`, `attention_mask`, `labels`, `next_sentence_label`."""
    for i in range(0, len(found), size):
        chunk = found[i : i + size]
        built = [_joined(first, second, tokenizer) for first, second, _ in chunk]
        width = max(len(ids) for ids, _ in built)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in built])
        types = torch.tensor([types + [0] * (width - len(types)) for _, types in built])
        inputs, labels = masked(ids, tokenizer, dice)
        yield {
            "input_ids": inputs,
            "token_type_ids": types,
            "attention_mask": (ids != tokenizer.pad_token_id).long(),
            "labels": labels,
            "next_sentence_label": torch.tensor([swapped for *_, swapped in chunk]),
        }


def _joined(first: list[int], second: list[int], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id, *second, tokenizer.sep_token_id]
    return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1)


def masked(ids: Tensor, tokenizer: PreTrainedTokenizerBase, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs and labels (B, T): 15 % of the tokens are scored; of those 80 % become [MASK], 10 % a random token."""
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=dice) < MASKED) & ~special
    kind = torch.rand(ids.shape, generator=dice)
    anything = torch.randint(len(tokenizer.all_special_ids), len(tokenizer), ids.shape, generator=dice)
    inputs = ids.masked_fill(chosen & (kind < 0.8), tokenizer.mask_token_id)
    inputs = torch.where(chosen & (kind >= 0.9), anything, inputs)
    return inputs, ids.masked_fill(~chosen, IGNORE)
