"""What pairs of a real corpus are like: the share of true ones, false labels, repeats between epochs, and what gives labels away.

Run it alone to see the figures: `FTLAB_DATA=... python tests/reference/nsp_pairs.py`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ftlab.data.sources.documents import Documents
from ftlab.rows import Stored
from ftlab.tasks.next_sentence import NextSentencePrediction


class Pair(NamedTuple):
    """A pair as a model sees it, and where it is from."""

    row: int
    first: tuple[int, ...]
    second: tuple[int, ...]
    label: int


class Corpus(NamedTuple):
    """WikiText-2's test articles: examples, and the text of each article as ids."""

    stored: list[Stored]
    texts: list[str]


def corpus(data: Path, task: NextSentencePrediction, limit: int = 128) -> Corpus:
    """Encode the articles."""
    tokenizer = known()
    source = Documents(path=str(data / "wikitext-2" / "test.txt"), layout="wikitext")
    rows = list(enumerate(source.rows("train")))
    stored: list[Stored] = [
        {k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in task.encode(rows, tokenizer, limit, labelled=True)
    ]
    ids: dict[int, list[int]] = {}
    for example in stored:
        ids.setdefault(int(example["row"][0]), []).extend(example["input_ids"].tolist())
    return Corpus(stored, [spelled(tuple(ids[i])) for i in range(len(rows))])


@cache
def known() -> PreTrainedTokenizerBase:
    """The tokenizer of the shipped BERT."""
    import ftlab

    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(Path(ftlab.__file__).parent / "assets" / "tiny-bert")
    return found


def spelled(ids: tuple[int, ...]) -> str:
    """Ids as text in which one sequence is found in another by `in`."""
    return " " + " ".join(map(str, ids)) + " "


def pairs(found: Corpus, task: NextSentencePrediction, epoch: int) -> list[Pair]:
    """All pairs of an epoch."""
    tokenizer = known()
    separator = tokenizer.sep_token_id
    drawn = []
    for i in range(len(found.stored)):
        shown = task.draw(found.stored, i, (0, epoch, i), tokenizer)
        ids = shown["input_ids"].tolist()
        cut = ids.index(separator)
        drawn.append(Pair(int(shown["row"][0]), tuple(ids[1:cut]), tuple(ids[cut + 1 : -1]), int(shown["nsp"][0])))
    return drawn


def false_labels(found: Corpus, drawn: list[Pair]) -> tuple[int, int]:
    """Wrong pairs whose B goes on from A, or stands in A's own article as more than a common phrase; true ones whose B does not."""
    wrong = [p for p in drawn if p.label == 1]
    goes_on = sum(spelled(p.first + p.second) in found.texts[p.row] for p in wrong)
    inside = sum(len(p.second) >= 20 and spelled(p.second) in found.texts[p.row] for p in wrong)
    return goes_on + inside, sum(p.label == 0 and spelled(p.second) not in found.texts[p.row] for p in drawn)


def repeats(one: list[Pair], other: list[Pair]) -> tuple[int, int]:
    """Wrong pairs of one epoch that another has as well, and the same for true ones."""
    again = {(p.first, p.second) for p in other}
    return tuple(sum((p.first, p.second) in again for p in one if p.label == label) for label in (1, 0))  # type: ignore[return-value]


if __name__ == "__main__":
    plain = NextSentencePrediction()
    articles = corpus(Path(os.environ["FTLAB_DATA"]), plain)
    epochs = [pairs(articles, plain, epoch) for epoch in range(2)]
    for drawn in epochs:
        share = 1 - np.mean([p.label for p in drawn])
        lengths = [np.mean([len(p.second) for p in drawn if p.label == label]) for label in (0, 1)]
        ends = [np.mean([p.second[-1] == articles.stored[0]["input_ids"][-1] for p in drawn if p.label == label]) for label in (0, 1)]
        sys.stdout.write(f"{len(drawn)} pairs, {share:.4f} true, false labels {false_labels(articles, drawn)}, ")
        sys.stdout.write(f"mean length of B {lengths[0]:.1f} / {lengths[1]:.1f}, ends with a full stop {ends[0]:.3f} / {ends[1]:.3f}\n")
    sys.stdout.write(f"repeated in the next epoch: {repeats(*epochs)} of wrong, true\n")
