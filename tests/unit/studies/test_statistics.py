from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from ftlab.errors import ConfigError
from ftlab.studies.intervals import Interval, Kind, bootstrap_interval, check_seeds, constant, t_interval
from ftlab.studies.statistics import Cost, pareto, scores_of, summarise, uneven_budgets
from tests.unit.studies.tables import table, trial

FIVE = [0.71, 0.74, 0.69, 0.78, 0.72]
EIGHT = [*FIVE, 0.75, 0.73, 0.70]


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def test_the_t_interval_is_scipys_of_the_one_sample_test() -> None:
    expected = stats.ttest_1samp(FIVE, 0).confidence_interval(0.95)
    assert ends(t_interval(FIVE)) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_the_bootstrap_interval_is_scipys_at_a_level_further_out() -> None:
    level = 1 - 2 * stats.norm.cdf(-stats.t.ppf(0.975, 4) * math.sqrt(5 / 4))
    expected = bootstrap(FIVE, level)
    assert ends(bootstrap_interval(FIVE)) == pytest.approx(expected)
    plain = bootstrap(FIVE, 0.95)
    assert expected[0] < plain[0]
    assert expected[1] > plain[1]


def bootstrap(values: list[float], level: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    found = stats.bootstrap((values,), np.mean, n_resamples=9999, confidence_level=level, method="percentile", rng=rng)
    return found.confidence_interval.low, found.confidence_interval.high


def test_the_same_scores_give_the_same_bootstrap() -> None:
    assert bootstrap_interval(FIVE) == bootstrap_interval(FIVE)


def test_a_bootstrap_of_four_is_not_given() -> None:
    assert bootstrap_interval(FIVE[:4]) is None


def test_a_variant_has_mean_deviation_and_both_intervals() -> None:
    (found,) = summarise(table({"a": FIVE}))
    assert (found.n, found.planned) == (5, 5)
    assert found.mean == pytest.approx(np.mean(FIVE))
    assert found.sd == pytest.approx(np.std(FIVE, ddof=1))
    assert (found.t, found.bootstrap) == (t_interval(FIVE), bootstrap_interval(FIVE))
    assert found.interval == found.t


def test_five_seeds_say_that_a_bootstrap_covers_less() -> None:
    (found,) = summarise(table({"a": FIVE}))
    assert found.notes == ()
    assert summarise(table({"a": EIGHT}))[0].notes == ()


def test_the_bootstrap_can_be_the_main_interval() -> None:
    (found,) = summarise(table({"a": EIGHT}), "bootstrap")
    assert found.interval == bootstrap_interval(EIGHT)
    assert "fewer than the 8 that the bootstrap interval needs" in summarise(table({"a": FIVE}), "bootstrap")[0].notes[0]


def test_one_seed_has_a_mean_a_warning_and_no_interval() -> None:
    (found,) = summarise(table({"a": [0.7]}))
    assert (found.mean, found.sd, found.t, found.bootstrap) == (0.7, None, None, None)
    assert found.notes == ("One seed: no interval, and no comparison with it can be tested.",)


def test_scores_that_do_not_change_with_the_seed_are_said() -> None:
    (found,) = summarise(table({"a": [0.7] * 5}))
    assert [*ends(found.t), *ends(found.bootstrap)] == pytest.approx([0.7] * 4)
    assert "because the metric did not change with the seed" in found.notes[0]


def test_what_did_not_end_well_is_left_out_and_counted() -> None:
    records = [
        *table({"a": [0.1, 0.2]}),
        trial("a", 2, math.nan),
        trial("a", 3, math.inf),
        trial("a", 4, None, state="invalid"),
        trial("a", 5, 0.4, state="failed"),
        trial("a", 6, None, state="waiting"),
        trial("a", 7, None, state="running"),
    ]
    (found,) = summarise(records)
    assert found.scores == {0: 0.1, 1: 0.2}
    assert found.states == {"complete": 4, "invalid": 1, "failed": 1, "waiting": 1, "running": 1}
    assert "2 of 8 seeds have not ended." in found.notes
    assert "4 of 8 seeds gave no finite score and are left out, which may flatter the variant." in found.notes


def test_a_variant_without_a_score_is_still_listed() -> None:
    bad, good = summarise([trial("bad", 0, None, state="failed"), *table({"good": FIVE})])
    assert (bad.variant, bad.n, bad.mean, bad.interval) == ("bad", 0, None, None)
    assert good.mean is not None


def test_a_seed_counts_once_however_often_it_is_listed() -> None:
    records = [trial("a", 0, None, state="failed"), trial("a", 0, 0.5, cpu_seconds=3.0), trial("a", 0, 0.9, cpu_seconds=5.0)]
    (found,) = summarise(records)
    assert (found.scores, found.planned, found.states) == ({0: 0.5}, 1, {"complete": 1})
    assert found.seed_cpu_seconds == 3.0
    assert found.total_cpu_seconds == 8.0


def test_the_cost_stands_beside_the_score() -> None:
    records = [
        trial("a", 0, 0.5, cpu_seconds=10.0, wall_seconds=12.0, peak_memory=100, trainable_params=7),
        trial("a", 1, 0.6, cpu_seconds=20.0, wall_seconds=14.0, peak_memory=300, trainable_params=7),
        trial("a", 2, None, state="failed", cpu_seconds=4.0, wall_seconds=1.0, peak_memory=900),
        trial("a", 100, 0.4, phase="tune", cpu_seconds=1.0),
        trial("a", 101, 0.4, phase="tune", state="pruned", cpu_seconds=0.5),
        trial("a", 102, None, phase="tune", state="failed", cpu_seconds=0.25),
    ]
    (found,) = summarise(records)
    assert found.scores == {0: 0.5, 1: 0.6}
    assert (found.tuning_trials, found.tuning_cpu_seconds) == (2, 1.75)
    assert (found.seed_cpu_seconds, found.wall_seconds, found.total_cpu_seconds) == (15.0, 13.0, 35.75)
    assert (found.peak_memory, found.trainable_params) == (300, 7)


def test_one_seed_that_paid_for_what_all_share_does_not_move_the_cost() -> None:
    records = [trial("a", seed, 0.5, cpu_seconds=cpu, wall_seconds=2 * cpu) for seed, cpu in enumerate((50.0, 10.0, 11.0))]
    (found,) = summarise(records)
    assert (found.seed_cpu_seconds, found.wall_seconds, found.total_cpu_seconds) == (11.0, 22.0, 71.0)


def test_a_cost_that_nobody_measured_is_none() -> None:
    (found,) = summarise(table({"a": FIVE}))
    assert (found.seed_cpu_seconds, found.total_cpu_seconds, found.peak_memory, found.tuning_cpu_seconds) == (None, None, None, None)


def test_fewer_tuning_trials_than_another_variant_are_flagged() -> None:
    tuning = [trial(v, n, 0.1, phase="tune") for v, count in (("a", 6), ("b", 6), ("c", 4)) for n in range(count)]
    records = [*tuning, trial("c", 5, None, phase="tune", state="failed"), *table({"a": FIVE, "b": FIVE, "c": FIVE, "d": FIVE})]
    assert uneven_budgets(records) == {
        "c": "4 of its tuning trials ended well, 6 of a: budgets are not equal.",
        "d": "0 of its tuning trials ended well, 6 of a: budgets are not equal.",
    }
    assert uneven_budgets(records)["c"] in summarise(records)[2].notes
    assert uneven_budgets(table({"a": FIVE, "b": FIVE})) == {}


@pytest.mark.parametrize(("direction", "front"), [("maximize", ["small", "good"]), ("minimize", ["small", "middle"])])
def test_the_front_holds_what_nothing_beats(direction: str, front: list[str]) -> None:
    points = {"small": (10, 0.6), "middle": (20, 0.5), "good": (30, 0.9), "waste": (40, 0.8)}
    records = [trial(name, 0, score, trainable_params=cost) for name, (cost, score) in points.items()]
    records += [trial("failed", 0, None, state="failed"), trial("unmeasured", 0, 0.99)]
    assert pareto(summarise(records), direction, "trainable_params") == front  # type: ignore[arg-type]


def test_equals_share_the_front() -> None:
    records = [trial(name, 0, 0.5, peak_memory=8) for name in ("a", "b")] + [trial("c", 0, 0.5, peak_memory=9)]
    assert pareto(summarise(records), "maximize", "peak_memory") == ["a", "b"]


@pytest.mark.parametrize("cost", ["trainable_params", "seed_cpu_seconds", "wall_seconds", "peak_memory"])
def test_every_cost_is_a_field(cost: Cost) -> None:
    assert pareto(summarise(table({"a": FIVE})), "minimize", cost) == []


@pytest.mark.parametrize(
    ("interval", "seeds", "sentence"),
    [
        (
            "bootstrap",
            5,
            "--interval is bootstrap, which needs at least 8 different seeds, and the study has 5; add seeds, or choose t, which needs 2.",
        ),
        ("bootstrap", 1, "--interval is bootstrap, which needs at least 8 different seeds, and the study has 1; add seeds."),
        ("t", 1, "--interval is t, which needs at least 2 different seeds, and the study has 1; add seeds."),
    ],
)
def test_fewer_seeds_than_an_interval_needs_are_refused(interval: Kind, seeds: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_seeds(interval, seeds)
    assert str(caught.value) == sentence


def test_enough_seeds_pass() -> None:
    check_seeds("t", 2)
    check_seeds("bootstrap", 8)


def test_variants_keep_the_records_order() -> None:
    assert list(scores_of(table({"z": FIVE, "a": FIVE}))) == ["z", "a"]


def test_rounding_is_no_spread() -> None:
    assert constant([0.1 + 0.2, 0.3])
    assert constant([1e-17, 0.0], scale=[0.3])
    assert not constant([1e-17, 0.0])


def test_statistics_import_nothing_heavy() -> None:
    names = "statistics, intervals, comparisons, items, predictions, ranks, effects, contributions"
    code = (
        f"import sys; from ftlab.studies import {names}; print({{'torch', 'optuna', 'scipy', 'pandas', 'statsmodels'}} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
