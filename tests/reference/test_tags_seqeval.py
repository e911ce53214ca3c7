"""Figures over entities beside those of seqeval, from a kept script, and beside seqeval itself where it is installed."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from typing import Any

import pytest

from ftlab.tasks.tags import complete, entities, entity_scores
from ftlab.tasks.token_classification import TokenClassification
from tests.reference.seqeval_cases import FILE, TYPES, cases, measured

CASES: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))


def ours(case: dict[str, Any]) -> dict[str, float]:
    scheme = case["scheme"]
    pairs = [(entities(a, scheme), entities(b, scheme)) for a, b in zip(case["gold"], case["predicted"], strict=True)]
    return {name: value for name, value in entity_scores(pairs, TYPES).items() if not math.isnan(value)}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_figures_are_seqevals(number: int) -> None:
    case = CASES[number]
    assert ours(case) == pytest.approx(case["figures"], abs=1e-12)


def test_the_cases_are_of_many_kinds() -> None:
    broken = [c for c in CASES for tags in c["predicted"] if len(entities(tags, c["scheme"])) and c["figures"]["f1"] < 1]
    assert {c["scheme"] for c in broken} == {"bio", "bilou"}
    assert {case["figures"]["f1"] for case in CASES} > {0.0, 1.0}
    assert [{k: c[k] for k in ("scheme", "gold", "predicted")} for c in CASES] == cases()


@pytest.mark.skipif(find_spec("seqeval") is None, reason="seqeval is not installed; its figures are in seqeval_cases.json")
def test_the_file_is_what_seqeval_says() -> None:
    assert [measured(case) for case in cases()] == [case["figures"] for case in CASES]


@pytest.mark.parametrize("scheme", ["bio", "bilou"])
def test_the_task_scores_rows_as_seqeval_does(scheme: Any) -> None:
    """The prediction of every row goes in by its number, whatever rows are left out."""
    case = next(c for c in CASES if c["scheme"] == scheme and len(c["gold"]) == 25 and 0 < c["figures"]["f1"] < 1)
    task = TokenClassification(scheme=scheme, labels=complete(TYPES, scheme))
    rows = [(2 * i, {"tokens": tags, "tags": tags}) for i, tags in enumerate(case["gold"])]
    predictions = [(2 * i, {"tags": tags}) for i, tags in enumerate(case["predicted"])]
    left_out = [(2 * i + 1, {"tokens": ["a"], "tags": ["O"]}) for i in range(25)]
    figures = task.score(predictions, [*rows, *left_out])
    assert {name: figures[name] for name in case["figures"]} == pytest.approx(case["figures"])
    words = [(a, b) for x, y in zip(case["gold"], case["predicted"], strict=True) for a, b in zip(x, y, strict=True)]
    assert figures["accuracy"] == pytest.approx(sum(a == b for a, b in words) / len(words))
