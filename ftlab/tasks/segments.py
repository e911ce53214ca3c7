"""Pairs of text segments from documents: Devlin et al. 2019 (section 3.1, A.2) and the sentence order of Lan et al. 2020."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ftlab.batch import IGNORE
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Examples, Stored
from ftlab.tasks.base import NumberedRows, Sample, Task, text_of, with_text
from ftlab.tasks.masking import tokens_of
from ftlab.tasks.segments_frame import frame_of
from ftlab.tasks.segments_text import sentences_of, splitter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Tokens: TypeAlias = NDArray[np.int64]
"""(1, T) ids, or (2, T) ids over whether a word starts."""

IS_NEXT, NOT_NEXT = 0, 1
"""The labels of `BertForNextSentencePrediction`."""

_TRIES = 8
"""Draws of another document's stretch, for one that is long enough and not the true continuation."""


_SAMPLE = (
    "one two three\nfour five\nsix seven eight\nnine", "red and green\nblue\nblack or white", "north by east\nwest\na far south",
    "many old birds\nsing in trees", "a list\nholds items\nof any kind",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SegmentTask(Task):
    """What the tasks on pairs of segments have in common.

    A row is a document. It is cut once into spans of whole sentences that fit the model; an epoch cuts each span anew into A and B.
    For `document` a wrong B is from another document and B always ends at a random place of its last sentence, whose start it
    keeps, at the same length for either label: neither its length nor its end tells where it is from.

    Args:
        text_column: The column that holds the document.
        sentences: How a document becomes sentences; a line each, a paragraph each (blank lines between), or split by sentencex.
        language: The language that `split` takes the text to be in, a code such as en.
        negatives: A wrong B; from another document, or the true one with A and B swapped (Lan et al. 2020).
        next_share: Share of pairs whose B is the true continuation.
        short_share: Share of pairs that are made from fewer sentences, so that short texts are seen as well.
        empty: What to do with a document that has no sentence; error names it, skip leaves it out and counts it.
    """

    sample = Sample(rows=[{"text": text} for text in _SAMPLE])
    free = Task.free | {"text_column"}
    keeps_single: ClassVar[bool]
    """Whether a document of one sentence is of use, though no pair can be made of it."""

    text_column: str = "text"
    sentences: Literal["lines", "paragraphs", "split"] = "lines"
    language: str = "en"
    negatives: Literal["document", "order"] = "document"
    next_share: float = 0.5
    short_share: float = 0.1
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if not 0 < self.next_share < 1:
            raise ConfigError(f"model.task.next_share is {self.next_share:g}; it must be above 0 and below 1, usually 0.5.")
        if not 0 <= self.short_share <= 1:
            raise ConfigError(f"model.task.short_share is {self.short_share:g}; it must be from 0 to 1, usually 0.1.")
        if not self.language.strip():
            raise ConfigError("model.task.language is empty; write the code of a language, such as en.")
        if self.language != "en" and self.sentences != "split":
            raise ConfigError(
                f"model.task.language is {self.language} while sentences is {self.sentences}, which asks for no language; set sentences to "
                "split or leave language out."
            )

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return (self.text_column,)

    def spans(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, words: bool) -> Iterator[Example]:
        """The spans of all documents: ids without special tokens, ends of sentences, and which examples are of the same document."""
        room = max_length - frame_of(tokenizer, 2).size
        if room < 2:
            raise ConfigError(f"data.max_length leaves {room} tokens for a pair of segments; it must leave at least 2.")
        done, documents, single = 0, 0, 0
        for number, sentences in self._documents(rows, tokenizer, room, words):
            if len(sentences) < 2:
                single += 1
                if not self.keeps_single:
                    continue
            bounds = _bounds([len(ids) for ids, _ in sentences], room)
            for start, end in bounds:
                yield _example(sentences[start:end], number, (done, len(bounds), room), words)
            done += len(bounds)
            documents += 1
        if single:
            use = "they are used without a pair" if self.keeps_single else "they were left out"
            log.warning("%d documents have a single sentence, of which no pair can be made: %s", single, use)
        if documents == 1 and self.negatives == "document":
            raise DataError(
                "there is a single document to make pairs from, so no other one for a wrong pair; give the split more documents, or set "
                "model.task.negatives to order."
            )

    def _documents(
        self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, room: int, words: bool
    ) -> Iterator[tuple[int, list[tuple[list[int], list[int]]]]]:
        """(number of the row, (ids, starts) of each sentence); one that alone exceeds `room` is cut into halves of it."""
        split = splitter(self.language) if self.sentences == "split" else None
        skipped, long, half = 0, 0, max(room // 2, 1)
        for number, row in with_text(rows, self.text_column, self.empty):
            texts = sentences_of(text_of(row, self.text_column, number), self.sentences, split)
            found: list[tuple[list[int], list[int]]] = []
            for ids, starts in tokens_of(texts, tokenizer, words) if texts else ():
                step = len(ids) if len(ids) <= room else half
                long += len(ids) > room
                found += [(ids[i : i + step], starts[i : i + step]) for i in range(0, len(ids), step or 1)]
            if found:
                yield number, found
            elif self.empty == "error":
                raise DataError(
                    f"row {number}, column '{self.text_column}' is a document with no sentence; "
                    "remove the row or set model.task.empty to skip."
                )
            else:
                skipped += 1
        if skipped:
            log.warning("%d documents with no sentence were skipped (model.task.empty: skip)", skipped)
        if long:
            log.warning("%d sentences of more than %d tokens were cut into several", long, room)

    def pair(self, examples: Examples, index: int, random: np.random.Generator) -> tuple[Tokens, Tokens | None, int]:
        """A, B and the label of one example; no B and `IGNORE` where there is a single sentence."""
        span, ends = _tokens(examples[index]), examples[index]["ends"].astype(np.int64)
        room = int(examples[index]["room"][0])
        if len(ends) < 2:
            return span[:, :room], None, IGNORE
        if random.random() < self.short_share:
            span, ends = _shortened(span, ends, room, random)
        cut = int(random.integers(1, len(ends)))
        first, second = span[:, : ends[cut - 1]], span[:, ends[cut - 1] :]
        is_next = random.random() < self.next_share
        if self.negatives == "document":
            second, other = _matched(examples, index, second, int(ends[-1] - ends[-2]), random)
            is_next = is_next or np.array_equal(second[0], other[0])
            second = second if is_next else other
        elif not is_next:
            is_next = np.array_equal(first[0], second[0])
            first, second = second, first
        first, second = _truncated(first, second, room, random)
        if self.negatives == "order":  # two that are equal stand in either order
            is_next = is_next or np.array_equal(first[0], second[0])
        return first, second, IS_NEXT if is_next else NOT_NEXT


def _bounds(lengths: list[int], room: int) -> list[tuple[int, int]]:
    """Sentences [start, end) of each span: as many as fit, and two at least."""
    found: list[tuple[int, int]] = []
    start = size = 0
    for place, length in enumerate(lengths):
        if place - start >= 2 and size + length > room:
            found.append((start, place))
            start, size = place, 0
        size += length
    if found and len(lengths) - start == 1:  # no pair can be made of a sentence alone
        start, _ = found.pop()
    return [*found, (start, len(lengths))]


def _example(sentences: list[tuple[list[int], list[int]]], number: int, place: tuple[int, int, int], words: bool) -> Example:
    first, count, room = place
    example: Example = {
        "input_ids": [token for ids, _ in sentences for token in ids],
        "row": number,
        "ends": np.cumsum([len(ids) for ids, _ in sentences]).tolist(),
        "first": first,
        "count": count,
        "room": room,
    }
    return {**example, "starts": [start for _, starts in sentences for start in starts]} if words else example


def _tokens(example: Stored) -> Tokens:
    fields = ("input_ids", "starts") if "starts" in example else ("input_ids",)
    return np.stack([example[field] for field in fields]).astype(np.int64)


def _shortened(span: Tokens, ends: Tokens, room: int, random: np.random.Generator) -> tuple[Tokens, Tokens]:
    """A run of its sentences, two at least, that reaches a random length."""
    first, target = int(random.integers(len(ends) - 1)), int(random.integers(2, room + 1))
    start = int(ends[first - 1]) if first else 0
    last = min(max(int(np.searchsorted(ends, start + target)), first + 1), len(ends) - 1)
    return span[:, start : ends[last]], ends[first : last + 1] - start


def _matched(examples: Examples, index: int, rest: Tokens, last: int, random: np.random.Generator) -> tuple[Tokens, Tokens]:
    """The true continuation and one from another document, cut at the same random place of the true one's last sentence."""
    length = rest.shape[1] - int(random.integers(last))
    other = rest[:, :0]
    for _ in range(_TRIES):
        found = _stretch(examples, index, length, random)
        if found.shape[1] > other.shape[1] and not np.array_equal(found[0], rest[0, : found.shape[1]]):
            other = found
        if other.shape[1] == length:
            break
    if not other.shape[1]:  # the other documents say the same
        other = rest[:, :length]
    return rest[:, : other.shape[1]], other


def _stretch(examples: Examples, index: int, length: int, random: np.random.Generator) -> Tokens:
    """At most `length` tokens from a random sentence of another document on, never from its first where there is a choice."""
    first, count = int(examples[index]["first"][0]), int(examples[index]["count"][0])
    place = int(random.integers(len(examples) - count))
    place += count * (place >= first)
    example = examples[place]
    ends = example["ends"]
    start = int(ends[random.integers(len(ends) - 1)]) if len(ends) > 1 else 0
    parts = [_tokens(example)[:, start:]]
    end = int(example["first"][0] + example["count"][0])
    while sum(part.shape[1] for part in parts) < length and place + 1 < end:
        place += 1
        parts.append(_tokens(examples[place]))
    return np.concatenate(parts, axis=1)[:, :length]


def _truncated(first: Tokens, second: Tokens, room: int, random: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Both within `room`: the longer one loses tokens, each at its front or its back at random."""
    sizes = [first.shape[1], second.shape[1]]
    over = max(sum(sizes) - room, 0)
    longer = int(sizes[1] >= sizes[0])
    alone = min(over, abs(sizes[0] - sizes[1]))
    lost = [(over - alone) // 2, (over - alone) // 2]
    lost[longer] += alone
    lost[1] += (over - alone) % 2
    front = [int(random.binomial(n, 0.5)) for n in lost]
    kept = [part[:, f : part.shape[1] - (n - f)] for part, n, f in zip((first, second), lost, front, strict=True)]
    return kept[0], kept[1]
