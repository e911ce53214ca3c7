from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as reference

from ftlab.errors import DataError
from ftlab.studies.comparisons import compare
from ftlab.studies.items import ItemComparison, compare_items, mcnemar, over_rows_and_seeds
from ftlab.studies.predictions import read_items, read_variants
from tests.unit.studies.tables import table, trial

WRONG = dict.fromkeys(range(40), 0.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def right(*rows: int) -> dict[int, float]:
    return WRONG | dict.fromkeys(rows, 1.0)


def runs(table: NDArray[np.float64]) -> dict[int, dict[int, float]]:
    return {seed: dict(enumerate(row.tolist())) for seed, row in enumerate(table)}


def minus(differences: NDArray[np.float64]) -> ItemComparison:
    return compare_items(runs(differences), runs(np.zeros_like(differences)), "maximize")


def test_mcnemar_is_that_of_statsmodels() -> None:
    one, other = right(*range(30)), right(*range(4), *range(25, 33))
    found = mcnemar(one, other)
    assert (found.both, found.only_one, found.only_other, found.neither) == (9, 21, 3, 7)
    assert found.p == pytest.approx(reference([[9, 21], [3, 7]], exact=True).pvalue)
    assert found.p == pytest.approx(stats.binomtest(3, 24).pvalue)


def test_mcnemar_of_runs_that_agree_finds_nothing() -> None:
    assert mcnemar(right(1, 2), right(1, 2)).p == 1.0


def test_mcnemar_takes_right_and_wrong_only() -> None:
    with pytest.raises(DataError, match="right or wrong"):
        mcnemar({0: 0.5}, {0: 1.0})


def test_one_run_of_each_is_bootstrapped_over_rows(rng: np.random.Generator) -> None:
    differences = rng.normal(0.2, 1, size=(1, 60))
    found = minus(differences)
    expected = stats.bootstrap((differences[0],), np.mean, method="percentile", rng=np.random.default_rng(5)).confidence_interval
    assert (found.over_rows.low, found.over_rows.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert (found.over_both, found.p_both) == (None, None)
    assert found.notes == ("One run of each: what holds for other rows need not hold for other seeds.",)
    assert (found.rows, found.seeds) == (60, (0,))
    assert found.difference == pytest.approx(differences.mean())


def test_exchanging_variants_within_rows_is_mcnemar_where_rows_are_right_or_wrong() -> None:
    one, other = right(*range(20)), right(*range(12), *range(30, 32))
    found = compare_items({7: one}, {7: other}, "maximize")
    assert found.p_rows == pytest.approx(mcnemar(one, other).p, abs=0.01)
    assert found.mcnemar[7].p == mcnemar(one, other).p
    assert found.verdict == "not significant"


def test_few_rows_are_exchanged_in_all_ways() -> None:
    differences = np.array([[0.3, 0.5, -0.1, 0.7, 0.2, 0.4]])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    means = np.abs((signs * differences).mean(1))
    assert minus(differences).p_rows == pytest.approx(np.mean(means >= differences.mean() - 1e-12))


def test_over_rows_and_seeds_has_the_mean_squares_of_a_two_way_anova(rng: np.random.Generator) -> None:
    differences = rng.normal(size=(4, 9)) + rng.normal(size=(4, 1)) + rng.normal(size=(1, 9))
    rows = [{"seed": s, "row": r, "d": v} for (s, r), v in np.ndenumerate(differences)]
    squares = anova_lm(ols("d ~ C(seed) + C(row)", pd.DataFrame(rows)).fit())["mean_sq"]
    total = squares["C(seed)"] + squares["C(row)"] - squares["Residual"]
    freedom = total**2 / (squares["C(seed)"] ** 2 / 3 + squares["C(row)"] ** 2 / 8 + squares["Residual"] ** 2 / 24)
    interval, p = over_rows_and_seeds(differences)
    expected = stats.t.interval(0.95, freedom, loc=differences.mean(), scale=math.sqrt(total / 36))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / math.sqrt(total / 36), freedom))


def test_without_differences_between_rows_only_seeds_count(rng: np.random.Generator) -> None:
    """The same difference in each row of a run: five numbers, whatever the number of rows."""
    by_seed = rng.normal(size=5)
    interval, p = over_rows_and_seeds(np.repeat(by_seed[:, None], 50, axis=1))
    expected = stats.ttest_1samp(by_seed, 0)
    assert p == pytest.approx(expected.pvalue)
    assert interval is not None
    assert interval.low == pytest.approx(expected.confidence_interval().low)


def test_seeds_that_agree_are_no_more_rows(rng: np.random.Generator) -> None:
    """Five times the same run says of other rows what one says."""
    differences = rng.normal(0.1, 1, size=(1, 80))
    once, often = minus(differences), minus(np.repeat(differences, 5, axis=0))
    assert (often.over_rows.low, often.over_rows.high) == pytest.approx((once.over_rows.low, once.over_rows.high))
    assert often.p_both == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue)


def test_a_row_has_its_mean_over_seeds(rng: np.random.Generator) -> None:
    differences = rng.normal(0.1, 1, size=(3, 30))
    found, mean = minus(differences), minus(differences.mean(0, keepdims=True))
    assert (found.over_rows, found.p_rows) == (mean.over_rows, mean.p_rows)


def test_the_verdict_asks_for_other_seeds_too(rng: np.random.Generator) -> None:
    """On these very runs the difference is sure; from seed to seed it changes its sign."""
    found = minus(np.array([[1.0], [-0.4], [0.5]]) + rng.normal(0, 0.1, size=(3, 100)))
    assert found.p_rows < 0.001
    assert found.p_both is not None
    assert found.p_both > 0.05
    assert found.verdict == "not significant"
    sure = np.array([[1.0], [0.9], [1.1]]) + rng.normal(0, 0.1, size=(3, 100))
    assert minus(sure).verdict == "better"
    assert minus(-sure).verdict == "worse"


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_a_difference_without_any_noise_is_not_tested(exact: bool) -> None:
    """As over seeds: the same difference in every row with every seed, but for the rounding of the scores that it is of."""
    base = np.full(50, 0.5) if exact else np.random.default_rng(0).random(50)
    one, other = (np.repeat(scores[None], 2, axis=0) for scores in (base, base - 0.1))
    found = compare_items(runs(one), runs(other), "minimize")
    assert found.difference == pytest.approx(0.1)
    assert (found.p_both, found.p, found.verdict) == (None, None, "not tested")
    assert found.over_both is not None
    assert (found.over_both.low, found.over_both.high) == pytest.approx((0.1, 0.1))
    assert "has no noise to test it against" in found.notes[-1]
    (over_seeds,) = compare(table({"one": one.mean(1).tolist(), "other": other.mean(1).tolist()}), "minimize")
    assert over_seeds.verdict == found.verdict


def test_scores_that_are_equal_but_for_rounding_are_equal() -> None:
    one = np.array([[0.1 + 0.2, 0.7], [0.3, 0.7]])
    found = compare_items(runs(one), runs(np.array([[0.3, 0.7], [0.3, 0.7]])), "minimize")
    assert (found.p_both, found.verdict) == (1.0, "not significant")


def test_one_row_says_nothing_of_other_rows_whatever_the_seeds() -> None:
    found = compare_items({0: {7: 0.1}, 1: {7: 0.4}}, {0: {7: 0.3}, 1: {7: 0.2}}, "minimize")
    assert (found.over_both, found.p, found.verdict) == (None, None, "not tested")


def test_of_one_seed_the_verdict_is_over_rows(rng: np.random.Generator) -> None:
    found = minus(rng.normal(2, 1, size=(1, 50)))
    assert (found.p, found.verdict) == (found.p_rows, "better")


def test_equal_predictions_are_not_significant() -> None:
    found = compare_items({0: right(1), 1: right(2)}, {0: right(1), 1: right(2)}, "maximize")
    assert (found.difference, found.p_rows, found.p_both, found.verdict) == (0.0, 1.0, 1.0, "not significant")
    assert (found.over_rows.low, found.over_rows.high) == (0.0, 0.0)


def test_mcnemar_of_each_seed_is_corrected_for_all() -> None:
    one, other = {0: right(*range(20)), 1: right(*range(9))}, {0: right(*range(10)), 1: right(*range(8))}
    found = compare_items(one, other, "maximize").mcnemar
    assert found[0].p == pytest.approx(2**-9)
    assert found[0].p_holm == pytest.approx(2 * 2**-9)
    assert found[1].p_holm == pytest.approx(1.0)


def test_only_common_seeds_and_rows_are_compared_and_that_is_said() -> None:
    one = {0: {0: 0.1, 1: 0.4, 2: 0.9}, 1: {0: 0.3, 1: 0.2}, 5: {0: 9.0}}
    other = {0: {0: 0.2, 1: 0.1, 3: 0.5}, 1: {0: 0.1, 1: 0.1}}
    found = compare_items(one, other, "minimize")
    assert (found.seeds, found.rows) == ((0, 1), 2)
    assert found.difference == pytest.approx(np.mean([-0.1, 0.3, 0.2, 0.1]))
    assert found.mcnemar == {}
    assert found.notes == (
        "Seeds 5 kept predictions of one variant only and are left out.",
        "2 of 4 rows are not scored in every run and are left out.",
    )


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(DataError, match="no seed in common"):
        compare_items({0: right(1)}, {1: right(1)}, "maximize")
    with pytest.raises(DataError, match="no row in common"):
        compare_items({0: {0: 1.0}}, {0: {1: 1.0}}, "maximize")


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_answers_are_held_against_the_truth(tmp_path: Path) -> None:
    path = write(tmp_path / "predictions.jsonl", {"row": 0, "label": "up"}, {"row": 1, "label": "down"}, {"row": 2, "label": None})
    assert read_items(path, "label", {0: "up", 1: "up", 2: "up"}) == {0: 1.0, 1: 0.0, 2: 0.0}


def test_the_truth_may_stand_beside_the_answer(tmp_path: Path) -> None:
    lines = [{"row": 0, "next": True, "truth": False}, {"row": 1, "next": False, "truth": False}, {"row": 2, "next": None, "truth": None}]
    assert read_items(write(tmp_path / "predictions.jsonl", *lines), "next", "truth") == {0: 0.0, 1: 1.0}


def test_numbers_are_scores_and_several_of_a_row_are_averaged(tmp_path: Path) -> None:
    lines = [{"row": 0, "loss": 1.0}, {"row": 0, "loss": 2.0}, {"row": 1, "loss": 4}, {"row": 2, "loss": None}]
    assert read_items(write(tmp_path / "predictions.jsonl", *lines), "loss") == {0: 1.5, 1: 4.0}


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    assert read_items(write(tmp_path / "predictions.jsonl", {"row": 0, "label": "a\u2028b"}), "label", {0: "a\u2028b"}) == {0: 1.0}


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"row": 0, "loss": 1.5}, {"row": 1, "loss": None}]), tmp_path / "predictions.parquet")
    assert read_items(tmp_path / "predictions.parquet", "loss") == {0: 1.5}


@pytest.mark.parametrize(
    ("line", "column", "truth", "sentence"),
    [
        ({"row": 0, "label": "up"}, "lable", None, "has no column 'lable'; did you mean label?"),
        ({"row": 0, "label": "up"}, "label", None, "row 0: column 'label' holds 'up', not a number"),
        ({"row": 0, "label": "up"}, "label", {1: "up"}, "truth has no row 0"),
        ({"row": 0, "label": "1"}, "label", {0: 1}, "row 0: the answer is '1' and the truth is 1, of another type"),
        ({"row": "x", "label": "1"}, "label", None, "has row 'x', not a number"),
        ([1], "label", None, "has a line that is no JSON object"),
    ],
)
def test_what_cannot_be_scored_is_said(tmp_path: Path, line: object, column: str, truth: dict[int, object] | None, sentence: str) -> None:
    path = write(tmp_path / "predictions.jsonl", line)
    with pytest.raises(DataError) as caught:
        read_items(path, column, truth)
    assert sentence in str(caught.value)


def test_a_damaged_or_missing_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"row": 0, "lab', encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as predictions"):
        read_items(tmp_path / "predictions.jsonl", "label")
    with pytest.raises(DataError, match="cannot be read as predictions"):
        read_items(tmp_path / "none.jsonl", "label")


def test_the_runs_of_a_study_that_kept_predictions_are_read(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path / f"runs/a/seed-{seed}/predictions.jsonl", {"row": 0, "loss": float(seed)})
    write(tmp_path / "runs/a/tune-0/predictions.jsonl", {"row": 0, "loss": 9.0})
    records = [
        trial("a", 0, 0.1, folder="runs/a/seed-0"),
        trial("a", 1, None, folder="runs/a/seed-1", state="failed"),
        trial("a", 2, 0.1, folder="runs/a/seed-2"),
        trial("a", 100, 0.1, folder="runs/a/tune-0", phase="tune"),
        trial("b", 0, 0.1),
    ]
    assert read_variants(records, tmp_path, "loss") == {"a": {0: {0: 0.0}}}
