"""Which factors hold data sets where they do not vary alone, and what is said where none does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ftlab.studies.effects import main_effects
from ftlab.studies.ranks import data_factors, over_data
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import findings, warnings
from ftlab.studies.report.numbers import probability
from ftlab.studies.report.page import page
from ftlab.studies.report.payload import payload
from tests.unit.studies.tables import trial

METHODS = ("lora", "full", "norms")
Levels = Mapping[str, str]


def study(folder: Path, rows: Sequence[Levels], keys: Mapping[str, Mapping[str, str]]) -> Digest:
    """Each row with each method; a factor's level sets keys of the run.

    Args:
        folder: The study's.
        rows: Levels of the other factors.
        keys: Factor → key → what is put after the level as its value.
    """
    made = []
    for n, (row, method) in enumerate(itertools.product(rows, METHODS)):
        levels = {**row, "method": method}
        settings = {key: level + end for factor, level in row.items() for key, end in keys[factor].items()}
        values = [n + 0.1 * seed * (n % 3 + 1) for seed in range(3)]
        made += [_trial(levels, {**settings, "model.tuning": method}, seed, value) for seed, value in enumerate(values)]
    return Digest("s", "val_loss", "minimize", folder, tuple(made))


def _trial(levels: Levels, settings: Mapping[str, object], seed: int, value: float) -> TrialRecord:
    return trial("-".join(levels.values()), seed, value, levels=levels, settings=settings, trainable_params=1)


SET = {
    "corpus": {"data.source.path": ".jsonl"},
    "size": {"data.batch_size": ""},
    "both": {"data.source.path": ".jsonl", "data.max_length": ""},
}
ZIPPED = [{"corpus": c, "size": s} for c, s in (("a", "small"), ("b", "big"), ("c", "large"))]
NESTED = [{"corpus": c, "size": s} for c, s in (("a", "small"), ("b", "big"), ("c", "big"))]
BOTH = [{"both": level} for level in "ab"]


def test_factors_that_advance_together_hold_data_sets_together(tmp_path: Path) -> None:
    made = study(tmp_path, ZIPPED, SET)
    assert made.data == ("corpus", "size")
    assert {name: best.variant for name, best in made.best.items()} == {
        "a, small": "a-small-lora", "b, big": "b-big-lora", "c, large": "c-large-lora",
    }  # fmt: skip
    assert {(pair.one.split("-")[0], pair.other.split("-")[0]) for pair in made.against_best.values()} == {(c, c) for c in "abc"}
    assert not isinstance(made.ranking, str | None)
    assert list(made.ranking.mean_ranks) == list(METHODS)
    assert not [text for text in warnings(made) if "data" in text]


def test_a_factor_that_advances_with_some_levels_of_another_holds_data_sets_alone(tmp_path: Path) -> None:
    assert study(tmp_path, NESTED, SET).data == ("corpus",)


@pytest.mark.parametrize("rows", [BOTH, [{"both": b, "size": s} for b in "ab" for s in ("small", "big")]])
def test_data_that_no_factor_holds_alone_is_not_compared_and_that_is_said(tmp_path: Path, rows: list[Levels]) -> None:
    made = study(tmp_path, rows, SET)
    assert (made.data, made.best, made.against_best, made.ranking) == ((), {}, {}, None)
    assert made.fronts("trainable_params") == []
    assert findings(made)[0] == "No variant is named best: variants differ in their data."
    beware = "Variants differ in data.source.path, which no factor sets alone, and scores on two data sets are not compared; "
    assert [text for text in warnings(made) if text.startswith(beware)]
    content = page(made)
    assert "<dt>Best variant</dt><dd>–</dd>" in content
    assert beware in content
    assert "both" not in [effect["factor"] for effect in payload(made)["effects"]]


def test_data_sets_that_are_mixed_within_another_are_neither_compared_nor_ranked(tmp_path: Path) -> None:
    keys = {**SET, "both": {"data.source.name": "", "data.max_length": ""}}
    rows = [{"corpus": c, "both": b} for c, b in (("a", "x"), ("a", "y"), ("b", "x"), ("c", "y"))]
    made = study(tmp_path, rows, keys)
    assert made.data == ("corpus",)
    assert {name: best.variant for name, best in made.best.items()} == {"b": "b-x-lora", "c": "c-y-lora"}
    assert "On a, no variant is named best: variants differ in their data." in findings(made)
    assert [text for text in warnings(made) if text.startswith("On a, variants differ in data.source.name, which no factor sets alone")]
    assert made.ranking == "No ranking: variants on a do not share one data set."


def test_effects_of_data_sets_are_no_effects(tmp_path: Path) -> None:
    rows = [{"corpus": c, "size": s} for c in "ab" for s in ("small", "big")]
    made = study(tmp_path, rows, SET)
    content = payload(made)
    assert [effect["factor"] for effect in content["effects"]] == ["size", "method"]
    assert [(pair["first"], pair["second"]) for pair in content["interactions"]] == [("size", "method")]
    alone = Digest("s", "val_loss", "minimize", tmp_path, study(tmp_path, [{"corpus": c} for c in "ab"], SET).records)
    (effect,) = payload(alone)["effects"]
    anova = next(found.anova for found in main_effects(alone.records) if found.factor == "method")
    assert anova is not None
    assert f"p = {probability(anova.p)} by Holm".replace("= <", "<") in effect["text"]  # corrected for no effect of the corpus


def test_a_factor_that_follows_the_data_is_over_data_and_holds_none(tmp_path: Path) -> None:
    rows = [{"corpus": c, "size": s} for c, s in (("a", "small"), ("a", "big"), ("b", "large"))]
    records = study(tmp_path, rows, SET).records
    assert data_factors(records) == ("corpus",)
    assert over_data(records) == ("corpus", "size")
