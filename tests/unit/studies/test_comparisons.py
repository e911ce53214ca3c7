from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from ftlab.errors import ConfigError
from ftlab.studies.comparisons import compare, compare_pairs, hedges, holm, least_p, verdict
from tests.unit.studies.tables import table, trial

A = [0.71, 0.74, 0.69, 0.78, 0.72]
B = [0.75, 0.79, 0.72, 0.81, 0.78]
C = [0.90, 0.70, 0.80, 0.75, 0.60]
NINE = [0.31, 0.12, 0.45, 0.27, 0.39, 0.18, 0.22, 0.41, 0.36]


def test_a_pair_is_scipys_paired_t_test() -> None:
    (found,) = compare(table({"a": A, "b": B}), "maximize")
    expected = stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert found.sd == pytest.approx(np.std(np.subtract(A, B), ddof=1))
    assert (found.one, found.other, found.seeds, found.notes) == ("a", "b", (0, 1, 2, 3, 4), ())


def test_effect_sizes_are_the_formulas_of_cohen_and_hedges() -> None:
    (found,) = compare(table({"a": A, "b": B}), "maximize")
    d = np.mean(np.subtract(A, B)) / np.std(np.subtract(A, B), ddof=1)
    assert found.d_z == pytest.approx(d)
    assert found.g_z == pytest.approx(d * special.gamma(2) / (math.sqrt(2) * special.gamma(1.5)))


@pytest.mark.parametrize("count", [3, 5, 20, 500])
def test_the_correction_takes_the_bias_away(count: int) -> None:
    """E[d_z] of a non-central t with effect 1, from SciPy's own mean."""
    expected = stats.nct(df=count - 1, nc=math.sqrt(count)).mean() / math.sqrt(count)
    assert hedges(count) * expected == pytest.approx(1.0, rel=1e-6)


def test_two_seeds_have_no_corrected_effect() -> None:
    (found,) = compare(table({"a": A[:2], "b": B[:2]}), "maximize")
    assert found.d_z is not None
    assert found.g_z is None


@pytest.mark.parametrize(("direction", "verdicts"), [("maximize", ("worse", "better")), ("minimize", ("better", "worse"))])
def test_the_verdict_knows_the_direction(direction: str, verdicts: tuple[str, str]) -> None:
    forth, back = compare_pairs(table({"a": A, "b": B}), [("a", "b"), ("b", "a")], direction)  # type: ignore[arg-type]
    assert (forth.verdict, back.verdict) == verdicts
    assert forth.p == pytest.approx(back.p)
    assert forth.p_holm == pytest.approx(forth.p)  # a pair both ways round is one test


def test_all_pairs_are_corrected_together_by_holm() -> None:
    found = compare(table({"a": A, "b": B, "c": C}), "maximize")
    assert [(c.one, c.other) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [stats.ttest_rel(x, y).pvalue for x, y in ((A, B), (A, C), (B, C))]
    assert [c.p for c in found] == pytest.approx(alone)
    assert [c.p_holm for c in found] == pytest.approx(list(multipletests(alone, method="holm")[1]))


def test_a_difference_that_only_holds_alone_is_not_significant() -> None:
    """p = 0.03 by itself, and three such tests."""
    noise = [0.3, -0.2, 0.1, -0.25, 0.05]
    shift = stats.t.isf(0.015, 4) * np.std(noise, ddof=1) / math.sqrt(5)
    rows = {"a": [0.0] * 5, "b": [x + float(shift) for x in noise], "c": [-x for x in noise]}
    pairs = {(c.one, c.other): c for c in compare(table(rows), "maximize")}
    assert pairs["a", "b"].p == pytest.approx(0.03)
    assert pairs["a", "b"].verdict == "not significant"
    assert compare(table({k: rows[k] for k in "ab"}), "maximize")[0].verdict == "worse"


def test_against_a_reference() -> None:
    found = compare(table({"a": A, "b": B, "c": C}), "maximize", reference="b")
    assert [(c.one, c.other) for c in found] == [("a", "b"), ("c", "b")]


def test_a_reference_that_is_no_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match="the study has no variant 'LoRa' to compare with; did you mean LoRA?"):
        compare(table({"LoRA": A, "Full": B}), "maximize", reference="LoRa")


def test_only_common_seeds_are_compared_and_that_is_said() -> None:
    (found,) = compare(table({"a": dict(enumerate(A)), "b": dict(zip((1, 2, 3, 4, 9), B, strict=True))}), "maximize")
    assert found.seeds == (1, 2, 3, 4)
    assert found.p == pytest.approx(stats.ttest_rel(A[1:], B[:4]).pvalue)
    assert found.notes == ("Seeds 0 of a have no partner and are left out.", "Seeds 9 of b have no partner and are left out.")


def test_pairs_go_by_seed_and_not_by_order() -> None:
    turned = dict(reversed(list(enumerate(B))))
    assert compare(table({"a": A, "b": turned}), "maximize")[0].p == compare(table({"a": A, "b": B}), "maximize")[0].p


def test_failed_and_tuning_trials_are_no_scores() -> None:
    extra = [trial("a", 5, math.nan), trial("b", 5, 0.1, state="failed"), trial("b", 6, 0.1, phase="tune")]
    (found,) = compare([*table({"a": A, "b": B}), *extra], "maximize")
    assert (found.seeds, found.notes) == ((0, 1, 2, 3, 4), ())


@pytest.mark.parametrize(("theirs", "difference", "said"), [({0: 0.6}, 0.1, "1 common seed:"), ({9: 0.6}, None, "0 common seeds:")])
def test_one_common_seed_is_not_tested(theirs: dict[int, float], difference: float | None, said: str) -> None:
    (found,) = compare(table({"a": {0: 0.7}, "b": theirs}), "maximize")
    assert found.difference == (None if difference is None else pytest.approx(difference))
    assert (found.p, found.p_holm, found.interval, found.verdict) == (None, None, None, "not tested")
    assert found.notes[-1].startswith(said)
    assert "not tested" in found.text()


def test_equal_variants_are_not_significant() -> None:
    (found,) = compare(table({"a": A, "b": A}), "maximize")
    assert (found.difference, found.p, found.verdict) == (0.0, 1.0, "not significant")
    assert found.notes == ("Both gave the same score with every seed.",)
    assert found.d_z is None


def test_a_difference_without_noise_is_not_tested() -> None:
    (found,) = compare(table({"a": A, "b": [x + 0.1 for x in A]}), "maximize")
    assert found.difference == pytest.approx(-0.1)
    assert (found.p, found.verdict) == (None, "not tested")
    assert "no noise to test it against" in found.notes[0]


def test_what_is_not_tested_does_not_count_among_the_tests() -> None:
    assert holm([0.02, None, 0.03]) == [pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_wilcoxon_is_scipys() -> None:
    other = [x + d for x, d in zip(NINE, (0.1, -0.02, 0.3, 0.25, 0.07, 0.12, 0.2, 0.15, 0.33), strict=True)]
    (found,) = compare(table({"a": NINE, "b": other}), "minimize", test="wilcoxon")
    expected = stats.wilcoxon(NINE, other)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.verdict, found.notes) == ("better", ())


def test_wilcoxon_on_five_seeds_says_that_it_cannot_find_anything() -> None:
    (found,) = compare(table({"a": A, "b": B}), "maximize", test="wilcoxon")
    assert found.p == pytest.approx(0.0625) == least_p(5)
    assert found.verdict == "not significant"
    assert found.notes == ("Wilcoxon's p cannot be below 0.0625 with 5 seeds, so it is never significant.",)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9])
def test_the_least_p_of_wilcoxon(count: int) -> None:
    assert stats.wilcoxon(np.arange(1.0, count + 1)).pvalue == pytest.approx(least_p(count))


def test_the_text_prints_the_verdict_and_both_p() -> None:
    (found,) = compare(table({"a": A, "b": B}), "maximize")
    p = f"{stats.ttest_rel(A, B).pvalue:.2g}"
    assert found.text() == f"a against b: worse (difference -0.042, 95 % interval -0.05819 to -0.02581, p {p}, {p} by Holm, 5 seeds)."
    (same,) = compare(table({"a": A, "c": C}), "maximize")
    assert same.text().startswith("a against c: not significant (")


@pytest.mark.parametrize(
    ("p", "difference", "expected"),
    [
        (0.05, -1.0, "better"),
        (0.0501, -1.0, "not significant"),
        (0.01, 1.0, "worse"),
        (None, 1.0, "not tested"),
        (0.01, None, "not tested"),
    ],
)
def test_the_limit_of_a_verdict(p: float | None, difference: float | None, expected: str) -> None:
    assert verdict(p, difference, "minimize") == expected
