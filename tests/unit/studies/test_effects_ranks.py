from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ftlab.errors import ConfigError
from ftlab.studies.ranks import rank, scores_by
from tests.unit.studies.tables import table, trial

METHODS = ("full", "head", "lora", "prompt")


def scores(datasets: int, gains: tuple[float, ...] = (0.0, -3.0, 0.5, -1.0)) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(5)
    return {f"d{i}": {m: float(g + rng.normal()) for m, g in zip(METHODS, gains, strict=True)} for i in range(datasets)}


@pytest.mark.parametrize("sign", [1, -1])
def test_friedman_and_the_mean_ranks_are_scipys(sign: int) -> None:
    table = {d: {m: sign * v for m, v in row.items()} for d, row in scores(12).items()}
    found = rank(table, "maximize" if sign == 1 else "minimize")
    columns = [[row[m] for row in table.values()] for m in METHODS]
    expected = stats.friedmanchisquare(*columns)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    means = stats.rankdata(-sign * np.array(columns), axis=0).mean(1)
    assert found.mean_ranks == {m: pytest.approx(r) for m, r in zip(METHODS, means, strict=True)}
    assert list(found.mean_ranks)[-1] == "head"


@pytest.mark.parametrize(("methods", "critical"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_has_demsars_values(methods: int, critical: float) -> None:
    """Table 5 (a) of Demšar 2006."""
    found = rank({f"d{i}": {f"m{j}": float(j) for j in range(methods)} for i in range(14)}, "minimize")
    assert found.critical_difference == pytest.approx(critical * math.sqrt(methods * (methods + 1) / (6 * 14)), abs=5e-4)


def test_a_pair_differs_where_its_ranks_are_apart_by_the_critical_difference() -> None:
    found = rank(scores(15), "maximize")
    assert found.p < 0.05
    apart = {pair: found.mean_ranks[pair[1]] - found.mean_ranks[pair[0]] for pair in found.pairs}
    assert set(found.different) == {pair for pair, distance in apart.items() if distance >= found.critical_difference}
    assert 0 < len(found.different) < len(found.pairs)
    for pair, distance in apart.items():
        width = math.sqrt(4 * 5 / (6 * 15))
        assert found.pairs[pair] == pytest.approx(stats.studentized_range.sf(distance / width * math.sqrt(2), 4, np.inf), abs=1e-9)
    assert "better than head" in found.text()
    assert found.text().endswith("every other pair: not significant.")


def test_no_difference_is_said_as_not_significant() -> None:
    turns = {f"d{i}": {m: float((i + j) % 4) for j, m in enumerate(METHODS)} for i in range(6)}
    found = rank(turns, "maximize")
    assert found.different == ()
    assert found.text().startswith("No difference between methods is significant (Friedman's p ")
    assert found.notes == ("6 data sets are few: Friedman's p is rough, and only large differences can be found.",)


def test_a_pair_alone_is_not_named_where_all_together_might_be_alike() -> None:
    table = np.random.default_rng(24).normal(size=(8, 6))
    found = rank({f"d{i}": {f"m{j}": float(v) for j, v in enumerate(row)} for i, row in enumerate(table)}, "minimize")
    assert found.p > 0.05 > min(found.pairs.values())
    assert found.different == ()


def test_methods_that_are_equal_everywhere_share_their_rank() -> None:
    found = rank({f"d{i}": {"a": 0.5, "b": 0.5, "c": 0.5} for i in range(12)}, "maximize")
    assert (found.p, found.mean_ranks) == (1.0, {"a": 2.0, "b": 2.0, "c": 2.0})


def test_a_data_set_that_a_method_failed_on_is_left_out() -> None:
    full = scores(12)
    del full["d3"]["lora"]
    full["d5"]["head"] = math.nan
    found = rank(full, "maximize")
    assert found.datasets == tuple(d for d in full if d not in ("d3", "d5"))
    assert found.notes[0] == "Not every method has a score on d3, d5: left out."


def test_a_method_that_failed_everywhere_is_not_ranked_and_that_is_said() -> None:
    levels = {f"{m}-{d}": {"data": d, "model.tuning": m} for d in ("a", "b", "c") for m in ("full", "lora", "head", "bad")}
    values = {"full": 0.3, "lora": 0.2, "head": 0.1}
    records = [
        trial(name, 0, values.get(of["model.tuning"]), levels=of, state="failed" if of["model.tuning"] == "bad" else "complete")
        for name, of in levels.items()
    ]
    found = rank(scores_by(records, "data"), "minimize")
    assert found.mean_ranks == {"head": 1.0, "lora": 2.0, "full": 3.0}
    assert found.notes[0] == "No score on any data set, and so not ranked: bad."


@pytest.mark.parametrize("few", [{"d0": {"a": 1.0, "b": 2.0}, "d1": {"a": 1.0, "b": 2.0}}, {"d0": {"a": 1.0, "b": 2.0, "c": 3.0}}, {}])
def test_too_few_methods_or_data_sets_are_refused(few: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ConfigError, match="ranks need at least 3 methods and 2 data sets"):
        rank(few, "maximize")


def test_data_sets_are_the_levels_of_a_factor() -> None:
    levels = {f"{m}-{d}": {"data": d, "model.tuning": m, "size": "small"} for m in ("lora", "full") for d in ("mr", "sst")}
    records = table({name: [0.5, 0.7] for name in levels if name != "full-sst"}, levels)
    records.append(trial("full-sst", 0, None, state="failed", levels=levels["full-sst"]))
    assert scores_by(records, "data") == {
        "mr": {"lora, small": pytest.approx(0.6), "full, small": pytest.approx(0.6)},
        "sst": {"lora, small": pytest.approx(0.6), "full, small": pytest.approx(math.nan, nan_ok=True)},
    }
    with pytest.raises(ConfigError, match="has no factor 'dat' to rank over; did you mean data?"):
        scores_by(records, "dat")
