from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.anova import AnovaRM

from ftlab.studies.effects import interactions, main_effects
from ftlab.studies.intervals import t_interval
from ftlab.studies.records import TrialRecord
from tests.unit.studies.tables import grid, table, trial

RNG = np.random.default_rng(3)
SCORES = {
    (a, b): (RNG.normal(size=5) + {"x": 0, "y": 1, "z": 2}[a] * (1 + (b == "large"))).tolist() for a in "xyz" for b in ("small", "large")
}
"""The effect of the first factor is twice as large where the second is large."""


def anova(records: Sequence[TrialRecord]) -> pd.DataFrame:
    rows = [{"a": r.levels["model.tuning"], "b": r.levels["size"], "seed": r.seed, "score": r.value} for r in records]
    return AnovaRM(pd.DataFrame(rows), "score", "seed", within=["a", "b"]).fit().anova_table


def greenhouse_geisser(scores: NDArray[np.float64]) -> float:
    """By orthonormal contrasts between the columns of (seeds, levels), as the formula is usually written."""
    levels = scores.shape[1]
    contrasts = np.linalg.qr(np.column_stack([np.ones(levels), np.eye(levels)[:, 1:]]))[0][:, 1:]
    roots = np.linalg.eigvalsh(np.cov((scores @ contrasts).T))
    return float(roots.sum() ** 2 / (len(roots) * (roots**2).sum()))


def test_the_anova_of_each_factor_is_that_of_statsmodels_with_its_correction() -> None:
    records = grid(SCORES)
    tuning, size = main_effects(records)
    expected = anova(records)
    for found, name in ((tuning, "a"), (size, "b")):
        assert found.anova is not None
        row = expected.loc[name]
        assert (found.anova.f, found.anova.between, found.anova.within) == pytest.approx((row["F Value"], row["Num DF"], row["Den DF"]))
    assert tuning.anova is not None
    means = np.array([[np.mean([SCORES[a, b][s] for b in ("small", "large")]) for a in "xyz"] for s in range(5)])
    epsilon = greenhouse_geisser(means)
    assert tuning.anova.epsilon == pytest.approx(epsilon)
    assert 0.5 <= epsilon < 1
    assert tuning.anova.p == pytest.approx(stats.f.sf(expected.loc["a", "F Value"], 2 * epsilon, 8 * epsilon))


def test_the_anova_of_an_interaction_is_that_of_statsmodels_with_its_correction() -> None:
    records = grid(SCORES)
    (found,) = interactions(records)
    row = anova(records).loc["a:b"]
    assert found.anova is not None
    assert (found.anova.f, found.anova.between, found.anova.within) == pytest.approx((row["F Value"], row["Num DF"], row["Den DF"]))
    slopes = np.array([[SCORES[a, "large"][s] - SCORES[a, "small"][s] for a in "xyz"] for s in range(5)])
    assert found.anova.epsilon == pytest.approx(greenhouse_geisser(slopes))


def test_a_factor_of_two_levels_is_the_paired_t_test_over_seeds() -> None:
    size = main_effects(grid(SCORES))[1]
    small, large = (np.mean([SCORES[a, b] for a in "xyz"], axis=0) for b in ("small", "large"))
    expected = stats.ttest_rel(small, large)
    assert size.anova is not None
    assert (size.anova.f, size.anova.p, size.anova.epsilon) == pytest.approx((expected.statistic**2, expected.pvalue, 1.0))


def test_an_interaction_of_two_by_two_is_the_t_test_of_the_double_difference() -> None:
    scores = {cell: row for cell, row in SCORES.items() if cell[0] != "z"}
    (found,) = interactions(grid(scores))
    double = np.subtract(scores["y", "large"], scores["y", "small"]) - np.subtract(scores["x", "large"], scores["x", "small"])
    expected = stats.ttest_1samp(double, 0)
    assert found.anova is not None
    assert (found.anova.f, found.anova.p) == pytest.approx((expected.statistic**2, expected.pvalue))
    departures = {cell.levels: cell for cell in found.departures}
    assert departures["y", "large"].mean == pytest.approx(double.mean() / 4)
    assert departures["y", "large"].interval is not None
    assert departures["y", "large"].interval.low == pytest.approx(expected.confidence_interval(0.95).low / 4)


def test_means_of_levels_and_cells_have_intervals_over_seeds() -> None:
    tuning = main_effects(grid(SCORES))[0]
    assert tuning.factor == "model.tuning"
    assert [level.levels for level in tuning.levels] == [("x",), ("y",), ("z",)]
    for level in tuning.levels:
        values = np.mean([SCORES[level.levels[0], b] for b in ("small", "large")], axis=0).tolist()
        assert level.mean == pytest.approx(np.mean(values))
        assert level.interval == t_interval(values)
    (pair,) = interactions(grid(SCORES))
    assert pair.factors == ("model.tuning", "size")
    assert {c.levels: c.mean for c in pair.cells} == {cell: pytest.approx(np.mean(row)) for cell, row in SCORES.items()}


def test_a_combination_that_was_left_out_is_averaged_nowhere() -> None:
    scores = {cell: row for cell, row in SCORES.items() if cell != ("z", "large")}
    tuning, size = main_effects(grid(scores))
    assert [level.mean for level in tuning.levels] == pytest.approx([np.mean(SCORES[a, "small"]) for a in "xyz"])
    assert size.levels[0].mean == pytest.approx(np.mean([SCORES[a, "small"] for a in "xy"]))
    said = "Not balanced: 1 of 2 combinations of the other factors ran with every level of model.tuning, and only these are averaged."
    assert tuning.notes == (said,)
    (pair,) = interactions(grid(scores))
    assert (pair.cells, pair.anova) == ((), None)
    (told,) = pair.notes
    assert (
        told
        == "Not balanced: 0 of 1 combinations of the other factors ran with every level of model.tuning and size, so no effect is given."
    )


def test_the_third_factor_is_averaged_out() -> None:
    levels = {f"{a}{b}{c}": {"a": a, "b": b, "c": c} for a in "xy" for b in "st" for c in "uv"}
    rows = {name: [0.1 * place, float(ord(name[0])), 0.3, 0.2 * place**2] for place, name in enumerate(levels)}
    pair = interactions(table(rows, levels))[0]
    assert pair.factors == ("a", "b")
    assert {c.levels: c.mean for c in pair.cells}["x", "t"] == pytest.approx(np.mean([rows["xtu"], rows["xtv"]]))


def test_a_seed_that_failed_anywhere_is_left_out_everywhere() -> None:
    records = [r for r in grid(SCORES) if (r.variant, r.seed) != ("x-small", 2)]
    records += [trial("x-small", 2, math.nan, levels={"model.tuning": "x", "size": "small"})]
    tuning, _ = main_effects(records)
    assert tuning.seeds == (0, 1, 3, 4)
    assert tuning.notes == ("Seeds 2 did not end well with every variant and are left out.",)
    assert tuning.levels[1].mean == pytest.approx(np.mean([np.delete(SCORES["y", b], 2) for b in ("small", "large")]))


def test_one_seed_has_means_without_intervals() -> None:
    tuning, _ = main_effects(grid({cell: row[:1] for cell, row in SCORES.items()}))
    assert [level.interval for level in tuning.levels] == [None] * 3
    assert tuning.anova is None


def test_seeds_that_change_nothing_have_no_anova() -> None:
    additive = {(a, b): [0.1 * len(b) + ord(a) / 7 + seed / 3 for seed in range(5)] for a in "xyz" for b in ("small", "larger")}
    assert [effect.anova for effect in main_effects(grid(additive))] == [None, None]
    assert interactions(grid(additive))[0].anova is None


def test_noise_in_one_effect_alone_disturbs_no_other() -> None:
    noisy = {(a, b): [seed * (a == "x") * 0.5 + (b == "large") for seed in (0, 1, 3)] for a in "xy" for b in ("small", "large")}
    tuning, size = main_effects(grid(noisy))
    assert tuning.anova is not None
    assert math.isfinite(tuning.anova.f)
    assert size.anova is None
    assert interactions(grid(noisy))[0].anova is None


def test_all_variants_failing_leaves_effects_empty() -> None:
    records = [trial(f"{a}-{b}", 0, None, state="failed", levels={"model.tuning": a, "size": b}) for a in "xy" for b in "st"]
    assert [(e.levels, e.seeds, e.anova) for e in main_effects(records)] == [((), (), None)] * 2
    assert interactions(records)[0].cells == ()


def test_a_factor_with_one_level_has_no_effect() -> None:
    records = table({"a": [0.1, 0.2]}, {"a": {"model.tuning": "LoRA"}})
    assert main_effects(records) == []
    assert interactions(records) == []
