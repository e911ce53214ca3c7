"""Exact match and F1 of answers, as the official scripts of SQuAD 1.1 and 2.0 define them; all figures are percentages."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """A text in lower case without punctuation and English articles, its words separated by one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """100 if the prediction is one of the answers, once both are normalised."""
    return 100.0 * (normalised(predicted) in map(normalised, answers))


def f1(predicted: str, answers: Sequence[str], unanswerable: bool) -> float:
    """The best F1 over words in common with one of the answers.

    Args:
        predicted: The text of the prediction.
        answers: The answers that are right.
        unanswerable: Whether two texts without a word are equal, as in SQuAD 2.0; in SQuAD 1.1 they have nothing in common.
    """
    return 100.0 * max(_f1(normalised(predicted).split(), normalised(answer).split(), unanswerable) for answer in answers)


def _f1(predicted: list[str], answer: list[str], unanswerable: bool) -> float:
    if unanswerable and not (predicted and answer):
        return float(predicted == answer)
    common = (Counter(predicted) & Counter(answer)).total()
    return 2 * common / (len(predicted) + len(answer)) if common else 0.0


def squad_scores(pairs: Sequence[tuple[str, Sequence[str]]], unanswerable: bool) -> dict[str, float]:
    """The means over all questions, NaN where there is none, and with SQuAD 2.0 also those over questions with and without an answer.

    Args:
        pairs: (predicted text, right answers); a prediction of no answer is an empty text.
        unanswerable: Whether the rules are those of SQuAD 2.0, where an answer that normalises to nothing does not count.
    """
    right = [_counted(answers) if unanswerable else answers for _, answers in pairs]
    exact = [exact_match(text, answers) for (text, _), answers in zip(pairs, right, strict=True)]
    overlap = [f1(text, answers, unanswerable) for (text, _), answers in zip(pairs, right, strict=True)]
    figures = {"exact_match": _mean(exact), "f1": _mean(overlap)}
    if unanswerable:
        for name, wanted in (("has_answer", True), ("no_answer", False)):
            chosen = [i for i, (_, answers) in enumerate(pairs) if bool(answers) is wanted]
            if chosen:
                figures |= {f"{name}_exact_match": _mean([exact[i] for i in chosen]), f"{name}_f1": _mean([overlap[i] for i in chosen])}
    return figures


def _counted(answers: Sequence[str]) -> list[str]:
    return [answer for answer in answers if normalised(answer)] or [""]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
