"""What the report says of a knock-out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ftlab.studies.report.digest import Digest
from ftlab.studies.report.escaping import latex, markdown
from ftlab.studies.report.factors import parts
from ftlab.studies.report.findings import findings
from ftlab.studies.report.paper import latex_table, markdown_table
from tests.unit.studies.tables import table

LEVELS = ("whole", "without-a", "without-b", "without-c", "only-a", "only-b", "only-c")


def scores() -> dict[str, list[float]]:
    rng = np.random.default_rng(3)
    means = (1.0, 0.9, 0.97, 0.99, 0.95, 0.96, 0.9)
    return {level: (mean + 0.05 * rng.normal(size=5)).tolist() for level, mean in zip(LEVELS, means, strict=True)}


def digest(values: dict[str, list[float]], folder: Path) -> Digest:
    records = table(values, {level: {"knockout": level} for level in values})
    return Digest("s", "val_accuracy", "maximize", folder, tuple(records))


def test_all_comparisons_of_a_knock_out_are_corrected_together(tmp_path: Path) -> None:
    values = scores()
    found = parts(digest(values, tmp_path))
    pairs = [("whole", f"without-{p}") for p in "abc"] + [(f"only-{p}", "whole") for p in "abc"]
    alone = [stats.ttest_rel(values[one], values[other]).pvalue for one, other in pairs]
    together = multipletests(alone, method="holm")[1]
    said = [text for entry in found for text in (entry["text"].split(". ")[0], entry["text"].split(". ")[1])]
    for place, (one, other) in enumerate(pairs):
        sentence = said[2 * (place % 3) + place // 3]
        assert f"{one} against {other}" in sentence
        assert f"p {alone[place]:.2g}, {together[place]:.2g} by Holm" in sentence


def test_what_the_parts_add_is_among_what_was_found(tmp_path: Path) -> None:
    made = digest(scores(), tmp_path)
    sentences = [entry["text"] for entry in parts(made)]
    assert len(sentences) == 3
    assert [text for text in findings(made) if text in sentences] == sentences
    for table_of, escape in ((markdown_table, markdown), (latex_table, latex)):
        assert all(escape(text) in table_of(made) for text in sentences)


def test_a_gain_has_the_sign_that_makes_more_of_it_better(tmp_path: Path) -> None:
    values = scores()
    first = parts(replace(digest(values, tmp_path), direction="minimize"))[0]
    added, alone = first["rows"]
    assert (added["name"], alone["name"]) == ("added to the others", "alone, against the whole")
    assert added["mean"] == pytest.approx(np.mean(values["without-a"]) - np.mean(values["whole"]))
    assert alone["mean"] == pytest.approx(np.mean(values["whole"]) - np.mean(values["only-a"]))


def test_of_two_parts_each_alone_is_shown_too(tmp_path: Path) -> None:
    values = {level: scores()[level] for level in LEVELS[:3]}
    made = digest(values, tmp_path)
    lists = {"whole": ["a", "b"], "without-a": ["b"], "without-b": ["a"]}
    told = replace(made, records=tuple(replace(r, settings={"trainer.callbacks": lists[r.variant]}) for r in made.records))
    assert [row["name"] for entry in parts(told) for row in entry["rows"]] == ["added to the others", "alone, against the whole"] * 2
