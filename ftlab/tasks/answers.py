"""Answers to questions: reading them, finding their tokens, and ranking the spans of a context."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import DataError, suggest
from ftlab.rows import Row

_T = TypeVar("_T")
Answer: TypeAlias = tuple[str, int]
"""(text, first character in the context)"""
Offset: TypeAlias = tuple[int, int]
"""(first character, character after the last)"""
Span: TypeAlias = tuple[int, int, float, str]
"""(first character, character after the last, score, text)"""


def answers_of(row: Row, column: str, number: int) -> list[Answer]:
    """The answers in a column.

    They are lists under `text` and `answer_start`, as in Hugging Face's SQuAD, or objects with both, as in the official files.

    Raises:
        DataError: They are neither.
    """
    if column not in row:
        raise DataError(f"row {number} has no column '{column}'; {suggest(column, row)}")
    value = row[column]
    texts, starts = _listed(_field(value, "text"), str), _listed(_field(value, "answer_start"), int)
    if texts is None or starts is None or len(texts) != len(starts):
        raise DataError(
            f"row {number}, column '{column}' holds {value!r:.80}; give {{text: [...], answer_start: [...]}} with texts and as many "
            "whole numbers, or a list of objects with both."
        )
    return list(zip(texts, starts, strict=True))


def _field(value: object, key: str) -> object:
    if isinstance(value, list) and all(isinstance(answer, Mapping) for answer in value):
        return [answer.get(key) for answer in value]
    return value.get(key) if isinstance(value, Mapping) else None


def _listed(values: object, kind: type[_T]) -> list[_T] | None:
    return values if isinstance(values, list) and all(is_a(value, kind) for value in values) else None


def is_a(value: object, kind: type) -> bool:
    """Whether a value is of a type; true and false, though Python counts them among whole numbers, are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def misplaced(answers: Iterable[Answer], context: str) -> Answer | None:
    """The first answer that does not stand in the context where it is said to."""
    return next(((text, at) for text, at in answers if not text.strip() or at < 0 or context[at : at + len(text)] != text), None)


def trimmed(offsets: Iterable[Offset], context: str) -> list[Offset]:
    """Offsets without the white space at either end, which some tokenizers count in."""
    found = []
    for start, end in offsets:
        while start < end and context[start].isspace():
            start += 1
        while start < end and context[end - 1].isspace():
            end -= 1
        found.append((start, end))
    return found


def tokens_of(answer: Answer, offsets: Sequence[Offset]) -> tuple[int, int] | None:
    """The first and the last token that hold a character of an answer; None where no token does."""
    text, at = answer
    places = [i for i, (start, end) in enumerate(offsets) if start < end and end > at and start < at + len(text)]
    return (places[0], places[-1]) if places else None


def best_spans(start: NDArray[np.float64], end: NDArray[np.float64], n_best: int, longest: int) -> list[tuple[int, int, float]]:
    """(first token, last token, score) of the best spans out of all, best first; of equal ones the earlier.

    Args:
        start: (T,) logits of a span's first token, -inf where none may begin.
        end: (T,) logits of its last.
        n_best: How many to return at most.
        longest: Tokens that a span has at most.
    """
    width = min(longest, len(end))
    if not width:
        return []
    ends = np.lib.stride_tricks.sliding_window_view(np.append(end, np.full(width - 1, -np.inf)), width)
    scores = (start[:, None] + ends).ravel()
    order = np.argsort(-scores, kind="stable")[:n_best]
    return [(int(i // width), int(i // width + i % width), float(scores[i])) for i in order if np.isfinite(scores[i])]


def ranked(spans: Iterable[Span], n_best: int) -> list[Span]:
    """The best spans of all windows; one that several windows show has the best of its scores."""
    best: dict[Offset, Span] = {}
    for span in spans:
        place = span[0], span[1]
        if place not in best or span[2] > best[place][2]:
            best[place] = span
    return sorted(best.values(), key=lambda span: (-span[2], span[0], span[1]))[:n_best]


def shares(scores: Sequence[float]) -> list[float]:
    """The softmax of some scores."""
    most = max(scores, default=0.0)
    weights = [math.exp(score - most) for score in scores]
    return [weight / sum(weights) for weight in weights]
