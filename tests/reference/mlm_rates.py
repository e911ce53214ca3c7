"""How often tokens are masked, replaced and kept over a million tokens: ftlab's draw, and the collator of transformers beside it.

Run it alone to see the figures: `python tests/reference/mlm_rates.py`.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binom
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, PreTrainedTokenizerBase

from ftlab.batch import IGNORE
from ftlab.rows import Stored
from ftlab.tasks.masked_lm import MaskedLM

LENGTH = 125
"""Tokens of a row; with two special ones, rows as they are in practice."""


class Rates(NamedTuple):
    """Counts of tokens: all that can be masked, those scored, and what stands in the place of the scored ones."""

    tokens: int
    scored: int
    mask: int
    other: int
    same: int


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """That of the shipped BERT."""
    import ftlab

    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(Path(ftlab.__file__).parent / "assets" / "tiny-bert")
    return found


def rows(count: int) -> list[list[int]]:
    """Rows of random ordinary tokens between [CLS] and [SEP]."""
    known = tokenizer()
    ordinary = np.setdiff1d(list(known.get_vocab().values()), known.all_special_ids)
    drawn = np.random.default_rng(0).choice(ordinary, size=(count, LENGTH))
    return [[known.cls_token_id, *row, known.sep_token_id] for row in drawn.tolist()]


def counted(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Rates:
    """What happened to all rows; all arrays are (rows, tokens)."""
    known = tokenizer()
    assert not np.isin(before[labels != IGNORE], known.all_special_ids).any()
    assert np.array_equal(labels[labels != IGNORE], before[labels != IGNORE])
    assert np.array_equal(after[labels == IGNORE], before[labels == IGNORE])
    new, old = after[labels != IGNORE], before[labels != IGNORE]
    mask = new == known.mask_token_id
    assert not np.isin(new[~mask], known.all_special_ids).any()
    return Rates(before.shape[0] * LENGTH, len(new), int(mask.sum()), int((~mask & (new != old)).sum()), int((new == old).sum()))


def ours(count: int, epoch: int = 0) -> Rates:
    """By `MaskedLM.draw`."""
    task, known = MaskedLM(), tokenizer()
    examples: list[Stored] = [{"input_ids": np.array(row), "row": np.array([i])} for i, row in enumerate(rows(count))]
    drawn = [task.draw(examples, i, (0, epoch, i), known) for i in range(count)]
    stacked = [np.stack([e[field] for e in each]) for each, field in ((examples, "input_ids"), (drawn, "input_ids"), (drawn, "mlm"))]
    return counted(*stacked)


def theirs(count: int) -> Rates:
    """By `DataCollatorForLanguageModeling`, whose random tokens may be special ones; those are not looked at here."""
    collate, whole = DataCollatorForLanguageModeling(tokenizer(), seed=0), rows(count)
    before = np.array(whole)
    batch = collate([{"input_ids": row} for row in whole])
    after, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    new, old = after[labels != IGNORE], before[labels != IGNORE]
    mask = new == tokenizer().mask_token_id
    return Rates(before.shape[0] * LENGTH, len(new), int(mask.sum()), int((~mask & (new != old)).sum()), int((new == old).sum()))


def outside(found: Rates, certainty: float = 0.9999) -> list[str]:
    """The rates that lie outside of their binomial interval around 15 % and 80 / 10 / 10 %."""
    chance = 1 / len(tokenizer())  # that a random token is the same one again
    expected = {
        "scored": (found.scored, found.tokens, 0.15),
        "mask": (found.mask, found.scored, 0.8),
        "other": (found.other, found.scored, 0.1 * (1 - chance)),
        "same": (found.same, found.scored, 0.1 * (1 + chance)),
    }
    wrong = []
    for name, (k, n, p) in expected.items():
        low, high = binom.interval(certainty, n, p)
        if not low <= k <= high:
            wrong.append(f"{name}: {k} of {n}, expected {low:.0f} to {high:.0f}")
    return wrong


if __name__ == "__main__":
    for who, rates in (("ftlab", ours(8000)), ("transformers", theirs(8000))):
        share = [rates.scored / rates.tokens, *(n / rates.scored for n in rates[2:])]
        sys.stdout.write(
            f"{who}: {rates.tokens} tokens, " + ", ".join(f"{x:.4f}" for x in share) + f"; outside: {outside(rates) or 'none'}\n"
        )
