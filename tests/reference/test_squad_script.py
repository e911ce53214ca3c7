"""Exact match and F1 beside those of SQuAD 2.0's script, from a kept script."""

from __future__ import annotations

import json

import pytest

from ftlab.tasks.squad_metrics import normalised, squad_scores
from tests.reference.squad_cases import FILE, NAMES, cases

EXPECTED: list[dict[str, float]] = json.loads(FILE.read_text(encoding="utf-8"))
CASES = cases()


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_figures_are_the_scripts(number: int) -> None:
    assert squad_scores(CASES[number], unanswerable=True) == pytest.approx(EXPECTED[number], abs=1e-9)


def test_the_cases_are_of_many_kinds() -> None:
    assert len(CASES) == len(EXPECTED)
    assert {frozenset(case) for case in EXPECTED} == {
        frozenset(NAMES.values()), *(frozenset(n for n in NAMES.values() if not n.startswith(other)) for other in ("has_", "no_")),
    }  # fmt: skip
    assert all(0 < case["exact_match"] < case["f1"] < 100 for case in EXPECTED[:4])
    pairs = [pair for case in CASES for pair in case]
    assert len(pairs) >= 300
    assert sum(not text for text, _ in pairs) > 50
    assert any(text and not normalised(text) for text, _ in pairs)
    assert any(answers and not any(map(normalised, answers)) for _, answers in pairs)
