"""A study over several data sets: scores are compared within each of them alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ftlab.studies.ranks import data_factors
from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import findings
from ftlab.studies.report.page import page
from ftlab.studies.report.paper import latex_table, markdown_table
from ftlab.studies.report.payload import payload
from ftlab.studies.report.testitems import Column
from tests.unit.studies.tables import trial

METHODS = {"lora": 0.2, "full": 0.0, "norms": 0.4}
CORPORA = {"law": 1.0, "news": 2.0, "mail": 3.0}
SEEDS = 5


def scores(method: str, corpus: str) -> list[float]:
    random = np.random.default_rng([*METHODS].index(method) + 10 * [*CORPORA].index(corpus))
    return [CORPORA[corpus] + METHODS[method] + 0.05 * float(noise) for noise in random.normal(size=SEEDS)]


def records(path: Callable[[str], object] = "{}.jsonl".format) -> list[TrialRecord]:
    """Three methods on three corpora; their differences are small beside those of the corpora."""
    return [
        trial(
            f"{method}-{corpus}", seed, value, levels={"method": method, "corpus": corpus}, folder=f"runs/{method}-{corpus}/seed-{seed}",
            settings={"model.tuning": method, "data.source.path": path(corpus)}, trainable_params=[*METHODS].index(method),
        )
        for method, corpus in itertools.product(METHODS, CORPORA) for seed, value in enumerate(scores(method, corpus))
    ]  # fmt: skip


def digest(folder: Path, column: Column | None = None) -> Digest:
    return Digest("s", "val_loss", "minimize", folder, tuple(records()), column)


def test_the_best_and_what_is_corrected_together_are_of_one_data_set(tmp_path: Path) -> None:
    made = digest(tmp_path)
    pairs = [(f"{a}-{c}", f"{b}-{c}") for c in CORPORA for a, b in itertools.combinations(METHODS, 2)]
    values = {f"{m}-{c}": scores(m, c) for m, c in itertools.product(METHODS, CORPORA)}
    p_values = multipletests([stats.ttest_rel(values[a], values[b]).pvalue for a, b in pairs], method="holm")[1]
    expected = {frozenset(pair): p for pair, p in zip(pairs, p_values, strict=True)}
    assert {name: best.variant for name, best in made.best.items()} == {
        c: min((f"{m}-{c}" for m in METHODS), key=lambda v: sum(values[v])) for c in CORPORA
    }
    assert len(made.against_best) == 6
    for pair in made.against_best.values():
        assert pair.one.split("-")[1] == pair.other.split("-")[1]
        assert pair.p_holm == pytest.approx(expected[frozenset((pair.one, pair.other))])


def test_data_sets_and_the_ranking_are_told_everywhere(tmp_path: Path) -> None:
    made = digest(tmp_path)
    told = findings(made)
    for corpus in CORPORA:
        assert sum(text.startswith(f"On {corpus}, full-{corpus} has the lowest mean val_loss") for text in told) == 1
        beaten = next(text for text in told if text.startswith(f"Significantly worse than full-{corpus}: "))
        assert not [other for other in CORPORA if other != corpus and other in beaten]
    friedman = stats.friedmanchisquare(*([np.mean(scores(m, c)) for c in CORPORA] for m in METHODS)).pvalue
    (ranks,) = [text for text in told if text.startswith("Ranks over corpus. ")]
    assert f"Friedman's p {friedman:.2g}" in ranks
    assert "Nemenyi's critical difference is 1.914." in ranks
    for text in (latex_table(made), markdown_table(made), page(made)):
        assert "Nemenyi" in text
        assert "all pairs of variants with the same corpus" in text
    assert "<dt>Best on news</dt><dd>full-news: " in page(made)


def test_the_front_is_one_for_each_data_set(tmp_path: Path) -> None:
    made = digest(tmp_path)
    content = payload(made)
    names = [[content["variants"][place]["name"] for place in front] for front in content["fronts"]["trainable_params"]]
    assert names == [[f"lora-{c}", f"full-{c}"] for c in CORPORA]
    assert sum(row["best"] for row in content["variants"]) == 3


def test_items_are_compared_with_the_best_of_their_data_set(tmp_path: Path) -> None:
    for r in records():
        (tmp_path / r.folder).mkdir(parents=True)
        lines = [json.dumps({"row": row, "loss": (r.value or 0.0) + 0.01 * row}) for row in range(20)]
        (tmp_path / r.folder / "predictions.jsonl").write_text("\n".join(lines))
    told = [text for text in findings(digest(tmp_path, Column("loss"))) if text.startswith("Over ")]
    assert [text.split(", ")[1].split(":")[0] for text in told] == [f"{m}-{c} against full-{c}" for c in CORPORA for m in ("lora", "norms")]


def test_what_changes_the_training_rows_alone_is_no_data_set() -> None:
    assert data_factors(records()) == ("corpus",)
    assert data_factors(records(lambda corpus: {"train": corpus, "validation": "one"})) == ()
    assert data_factors(records(lambda corpus: {"train": "one", "validation": corpus})) == ("corpus",)
    assert data_factors(records(lambda corpus: {"train": corpus})) == ("corpus",)  # validation rows are taken out of it


def test_two_factors_of_data_make_the_data_sets_together(tmp_path: Path) -> None:
    made = [
        trial(
            f"{m}-{c}-{p}", seed, 1.0 + n + seed * 0.1 * (n % 4), levels={"m": m, "corpus": c, "part": p},
            settings={"model.tuning": m, "data.source.path": c, "data.source.name": p},
        )
        for n, (m, c, p) in enumerate(itertools.product("xyz", "ab", "12")) for seed in (0, 1)
    ]  # fmt: skip
    found = Digest("s", "val_loss", "minimize", tmp_path, tuple(made))
    assert list(found.best) == ["a, 1", "a, 2", "b, 1", "b, 2"]
    assert found.ranking is not None
    assert not isinstance(found.ranking, str)
    assert (found.ranking.datasets, list(found.ranking.mean_ranks)) == (tuple(found.best), ["x", "y", "z"])
