"""Exact match and F1 of answers beside torchmetrics (SQuAD 1.1), and beside figures by hand (SQuAD 2.0)."""

from __future__ import annotations

import random

import pytest
from torchmetrics.text import SQuAD

from ftlab.tasks.squad_metrics import normalised, squad_scores

PARTS = [
    "The",
    "Denver",
    "Broncos",
    "of",
    "1,000",
    "24–10",
    "a",
    "an",
    "—",
    "U.S.",
    "the",
    "naïve",
    "Broncos.",
    "(three)",
    "ANTE",
    " ",
    "\u00a0x",
]


def drawn(rng: random.Random) -> str:
    """A text with a word: without one torchmetrics follows the script of SQuAD 2.0, and that of SQuAD 1.1 gives an F1 of 0."""
    text = " ".join(rng.choices(PARTS, k=rng.randint(1, 5)))
    return text if normalised(text) else drawn(rng)


def test_figures_are_those_of_torchmetrics() -> None:
    rng = random.Random(0)
    for _ in range(20):
        pairs = [(drawn(rng), [drawn(rng) for _ in range(rng.randint(1, 4))]) for _ in range(12)]
        pairs += [(answers[-1].lower(), answers) for _, answers in pairs[:4]]
        measure = SQuAD()
        measure.update(
            [{"prediction_text": text, "id": str(i)} for i, (text, _) in enumerate(pairs)],
            [{"answers": {"answer_start": [0] * len(a), "text": a}, "id": str(i)} for i, (_, a) in enumerate(pairs)],
        )
        expected = {name: float(value) for name, value in measure.compute().items()}
        assert squad_scores(pairs, unanswerable=False) == pytest.approx(expected, rel=1e-5)
        assert 0 < expected["exact_match"] < expected["f1"] < 100


def test_how_texts_are_normalised() -> None:
    """As the official script says: lower case, no punctuation of ASCII, no articles, one space between words."""
    assert normalised("The  U.S. and\u00a0an Antelope—a, “the”") == "us and antelope— “ ”"


# (prediction, answers, exact match, F1), by the rules of the official script of SQuAD 2.0
BY_HAND: list[tuple[str, list[str], float, float]] = [
    ("", [], 100, 100),
    ("the", [], 100, 100),  # what is left of both is nothing
    ("Bo", [], 0, 0),
    ("", ["Bo"], 0, 0),
    ("Bo Li", ["Bo", "Bo Li Ma"], 0, 80),  # two of two and two of three words
    ("bo!", ["Li", "Bo"], 100, 100),
    ("", ["the"], 100, 100),  # an answer of an article does not count, so there is none
    ("x", ["the", "x y"], 0, 100 * 2 / 3),
    ("", ["the", "Bo"], 0, 0),  # nor does it beside another
]


def test_questions_without_an_answer() -> None:
    figures = squad_scores([(text, answers) for text, answers, *_ in BY_HAND], unanswerable=True)
    has, no = BY_HAND[3:], BY_HAND[:3]
    expected = {
        "exact_match": sum(case[2] for case in BY_HAND) / 9,
        "f1": sum(case[3] for case in BY_HAND) / 9,
        "has_answer_exact_match": sum(case[2] for case in has) / 6,
        "has_answer_f1": sum(case[3] for case in has) / 6,
        "no_answer_exact_match": sum(case[2] for case in no) / 3,
        "no_answer_f1": sum(case[3] for case in no) / 3,
    }
    assert figures == pytest.approx(expected)


def test_a_split_of_one_kind_has_no_figures_of_the_other() -> None:
    assert squad_scores([("a b", ["b"])], unanswerable=True).keys() == {"exact_match", "f1", "has_answer_exact_match", "has_answer_f1"}
    assert squad_scores([("the", ["the"])], unanswerable=False) == {"exact_match": 100.0, "f1": 0.0}  # as in SQuAD 1.1
