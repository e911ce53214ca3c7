"""Which tokens of a row are masked, and what stands in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftlab.batch import IGNORE
from ftlab.errors import ConfigError
from ftlab.rows import Stored
from ftlab.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Index: TypeAlias = NDArray[np.int64]

_SPAN_RATE, _SPAN_LIMIT = 0.2, 10
"""Spans have a geometric number of words, ten at most, as in Joshi et al. 2020, section 3.1."""


@dataclass(frozen=True)
class Pool:
    """What a vocabulary offers to masking.

    Args:
        mask: The id of the mask token.
        ordinary: The ids that a random token is drawn from.
        special: Whether an id is of a special token, up to the largest id.
    """

    mask: int
    ordinary: Index
    special: NDArray[np.bool_]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a tokenizer's special tokens, also of those that were added without a role such as `sep_token`."""
    added = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return sorted({*tokenizer.all_special_ids, *added})


_pools: WeakKeyDictionary[PreTrainedTokenizerBase, Pool] = WeakKeyDictionary()


def pool_of(tokenizer: PreTrainedTokenizerBase) -> Pool:
    """The pool of a tokenizer, found once.

    Raises:
        ConfigError: It has no mask token.
    """
    found = _pools.get(tokenizer)
    if found is None:
        if tokenizer.mask_token_id is None:
            raise ConfigError(
                f"model.backbone.name {tokenizer.name_or_path} has a tokenizer without a mask token, which tasks that mask need; "
                "name an encoder such as ftlab/tiny-bert, or choose CausalLM."
            )
        ids = np.array(sorted(tokenizer.get_vocab().values()), dtype=np.int64)
        special = np.zeros(ids[-1] + 1, dtype=bool)
        special[special_ids(tokenizer)] = True
        found = _pools[tokenizer] = Pool(int(tokenizer.mask_token_id), ids[~special[ids]], special)
    return found


@dataclass(frozen=True, kw_only=True)
class MaskingTask(Task):
    """What the tasks that predict masked tokens have in common.

    A row's number of masked tokens is `mask_share` of those that can be masked, rounded up or down at random, and at least one.
    Special tokens are never masked and never drawn. With `word` a word is masked whole; with `span`, runs of whole words with a
    geometric number of words (Joshi et al. 2020), each run replaced in one way.

    Args:
        mask_share: Share of a row's tokens that are predicted.
        mask_token_share: Share of those that are replaced by the mask token.
        random_share: Share of those that are replaced by a random token; the rest stay as they are.
        unit: What is masked together; single tokens, whole words, or spans of words.
    """

    mask_share: float = 0.15
    mask_token_share: float = 0.8
    random_share: float = 0.1
    unit: Literal["token", "word", "span"] = "token"

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"model.task.mask_share is {self.mask_share:g}; it must be above 0 and below 1, usually 0.15.")
        shares = (self.mask_token_share, self.random_share)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise ConfigError(
                f"model.task.mask_token_share is {shares[0]:g} and random_share {shares[1]:g}; "
                "neither may be below 0, and their sum not above 1."
            )

    def masked(self, ids: Index, starts: Index | None, pool: Pool, random: np.random.Generator) -> tuple[Index, Index]:
        """The ids (T,) with masks, and the labels (T,), `IGNORE` where nothing is masked.

        Args:
            ids: The row, special tokens included.
            starts: 1 where a word or a special token starts; None where tokens are masked singly.
            pool: The tokenizer's.
            random: Where everything random comes from.
        """
        places = np.flatnonzero(~pool.special[ids])
        if not len(places):
            return ids, np.full_like(ids, IGNORE)
        chosen, run = self._chosen(places, starts, random)
        fate = random.random(run[-1] + 1)[run]
        drawn = pool.ordinary[random.integers(len(pool.ordinary), size=len(chosen))]
        new, labels = ids.copy(), np.full_like(ids, IGNORE)
        labels[chosen] = ids[chosen]
        new[chosen] = np.where(fate < self.mask_token_share + self.random_share, drawn, ids[chosen])
        new[chosen[fate < self.mask_token_share]] = pool.mask
        return new, labels

    def _chosen(self, places: Index, starts: Index | None, random: np.random.Generator) -> tuple[Index, Index]:
        """The chosen places (n,), and for each the number of the run that is replaced in one way."""
        target = self.mask_share * len(places)
        if starts is None:
            chosen = places[_some(np.ones(len(places), dtype=np.int64), target, random)]
            return chosen, np.arange(len(chosen))
        word = np.unique(np.cumsum(starts)[places], return_inverse=True)[1]
        sizes = np.bincount(word)
        if self.unit == "word":
            chosen = places[np.isin(word, _some(sizes, target, random))]
            return chosen, np.arange(len(chosen))
        first = np.searchsorted(word, np.arange(len(sizes)))
        joined = np.diff(places, prepend=-2)[first] == 1
        spans = _spans(sizes, joined, target, random)
        parts = [np.flatnonzero(np.isin(word, span)) for span in spans]
        return places[np.concatenate(parts)], np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def _some(sizes: Index, target: float, random: np.random.Generator) -> Index:
    """Units in random order until they hold `target` tokens; the one that would exceed it comes in as often as makes the mean exact."""
    order = random.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    count = int(np.searchsorted(ends, target, side="right"))
    if count < len(order):
        before = ends[count] - sizes[order[count]]
        count += int(random.random() * sizes[order[count]] < target - before)
    return order[: max(count, 1)]


def _spans(sizes: Index, joined: NDArray[np.bool_], target: float, random: np.random.Generator) -> list[list[int]]:
    """Runs of words that together hold about `target` tokens; `joined` says whether a word comes right after the one before it."""
    free = np.ones(len(sizes), dtype=bool)
    found: list[list[int]] = []
    while target > 0 and free.any():
        start = int(random.choice(np.flatnonzero(free)))
        span: list[int] = []
        for word in range(start, min(start + min(int(random.geometric(_SPAN_RATE)), _SPAN_LIMIT), len(sizes))):
            if not free[word] or (span and not joined[word]) or target <= 0:
                break
            if sizes[word] > target and random.random() * sizes[word] >= target and (found or span):
                target = 0
                break
            span.append(word)
            free[word] = False
            target -= sizes[word]
        found += [span] if span else []
    return found


def tokens_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, words: bool) -> list[tuple[list[int], list[int]]]:
    """The ids of each text without special tokens, and with `words` 1 for each that starts a word, else an empty list.

    A word is what the tokenizer cuts a text into before it looks for pieces, and never goes on after white space: SentencePiece
    models may take a whole text for one word.

    Raises:
        ConfigError: Words are wanted from a tokenizer that does not know them.
    """
    if words and not tokenizer.is_fast:
        raise ConfigError(f"model.task.unit needs words, which {type(tokenizer).__name__} does not know; set it to token.")
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False, return_token_type_ids=False)
    if not words:
        return [(ids, []) for ids in encoded["input_ids"]]
    return [(e.ids, _starts(text, e.word_ids, e.offsets)) for text, e in zip(texts, encoded.encodings or [], strict=True)]


def _starts(text: str, words: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> list[int]:
    previous: Sequence[int | None] = [None, *words]
    return [  # each word beside the one before it, so the last of those is left over
        int(word is None or word != before or text[max(start - 1, 0) : start + 1].strip() != text[max(start - 1, 0) : start + 1])
        for word, before, (start, _) in zip(words, previous, offsets, strict=False)
    ]


def padded_labels(examples: Sequence[Stored], field: str) -> Tensor:
    """(B, T) labels of tokens, padded with `IGNORE`."""
    labels = np.full((len(examples), max(len(e["input_ids"]) for e in examples)), IGNORE, dtype=np.int64)
    for row, example in zip(labels, examples, strict=True):
        row[: len(example[field])] = example[field]
    return torch.from_numpy(labels)
