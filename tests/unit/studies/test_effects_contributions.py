from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ftlab.errors import ConfigError
from ftlab.studies.contributions import Part, contributions, parts_of
from ftlab.studies.knockout import ALONE, NAME, WHOLE, WITHOUT
from ftlab.studies.records import TrialRecord
from tests.unit.studies.tables import table


def knocked(*labels: str, **rest: str) -> list[TrialRecord]:
    rng = np.random.default_rng(2)
    gains = {WHOLE: 1.0, f"{WITHOUT}lora": 0.4, f"{ALONE}lora": 0.9, f"{WITHOUT}norms": 0.95, f"{ALONE}norms": 0.3}
    names = {"-".join((*rest.values(), label)): label for label in labels}
    scores = {name: (gains.get(label, 0.5) + 0.05 * rng.normal(size=5)).tolist() for name, label in names.items()}
    return table(scores, {name: {**rest, NAME: label} for name, label in names.items()})


THREE = (WHOLE, *(f"{kind}{part}" for kind in (WITHOUT, ALONE) for part in ("lora", "norms", "prompt")))


def column(records: list[TrialRecord], variant: str) -> list[float]:
    return [r.value for r in records if r.variant == variant and r.value is not None]


def test_a_contribution_is_the_whole_without_it_seed_by_seed() -> None:
    records = knocked(*THREE)
    found = contributions(records, parts_of(records), "maximize")
    assert [c.part for c in found] == ["lora", "norms", "prompt"]
    expected = stats.ttest_rel(column(records, WHOLE), column(records, f"{WITHOUT}lora"))
    interval = expected.confidence_interval(0.95)
    assert found[0].to_whole.difference == pytest.approx(np.mean(column(records, WHOLE)) - np.mean(column(records, f"{WITHOUT}lora")))
    assert found[0].to_whole.interval is not None
    assert (found[0].to_whole.interval.low, found[0].to_whole.interval.high) == pytest.approx((interval.low, interval.high))
    assert found[0].to_whole.verdict == "better"
    assert found[0].by_itself is not None
    assert (found[0].by_itself.one, found[0].by_itself.other) == (f"{ALONE}lora", WHOLE)


def test_all_contributions_are_corrected_together() -> None:
    records = knocked(*THREE)
    found = contributions(records, parts_of(records), "maximize")
    tests = [*(c.to_whole for c in found), *(c.by_itself for c in found if c.by_itself)]
    assert len(tests) == 6
    expected = multipletests([t.p for t in tests], method="holm")[1]
    assert [t.p_holm for t in tests] == pytest.approx(list(expected))


KEY = "model.tuning.strategies"


def of_two(*, composed: bool = True) -> list[TrialRecord]:
    """A knock-out of two parts with the settings of its trials; what is left alone runs without Compose."""
    settings: dict[str, dict[str, object]] = {WHOLE: {KEY: ["lora", "norms"], "trainer.callbacks": ["a", "b"]}}
    for part, other in (("lora", "norms"), ("norms", "lora")):
        alone: dict[str, object] = {"model.tuning": other} if composed else {KEY: [other]}
        settings[f"{WITHOUT}{part}"] = {**alone, "trainer.callbacks": ["a", "b"]}
    return [replace(r, settings=settings[r.variant]) for r in knocked(*settings)]


def test_of_three_parts_two_without_are_not_alone() -> None:
    """The third was skipped: what is left without one of them are two parts still."""
    parts = {WHOLE: ["lora", "norms", "prompt"], f"{WITHOUT}lora": ["norms", "prompt"], f"{WITHOUT}norms": ["lora", "prompt"]}
    records = [replace(r, settings={KEY: parts[r.variant]}) for r in knocked(*parts)]
    assert [part.alone for part in parts_of(records)] == [None, None]


def test_of_any_list_of_two_as_well() -> None:
    assert [part.alone for part in parts_of(of_two(composed=False))] == [f"{WITHOUT}norms", f"{WITHOUT}lora"]


def test_of_two_parts_one_without_the_other_is_that_one_alone() -> None:
    records = of_two()
    lora, norms = parts_of(records)
    assert (lora.name, lora.alone, norms.alone) == ("lora", f"{WITHOUT}norms", f"{WITHOUT}lora")
    found = contributions(records, [lora, norms], "maximize")
    assert found[0].by_itself is not None
    assert found[0].by_itself.p == pytest.approx(found[1].to_whole.p)
    assert found[0].to_whole.p is not None
    assert found[0].to_whole.p_holm == pytest.approx(2 * found[0].to_whole.p)  # two tests, not four


def test_other_factors_have_parts_of_their_own() -> None:
    records = [*knocked(*THREE[:3], size="small"), *knocked(*THREE[:3], size="large")]
    assert [part.name for part in parts_of(records)] == ["lora (small)", "norms (small)", "lora (large)", "norms (large)"]


def test_a_part_that_was_not_run_alone_has_its_contribution_only() -> None:
    records = knocked(WHOLE, *(f"{WITHOUT}{part}" for part in ("lora", "norms", "prompt")))
    assert [c.by_itself for c in contributions(records, parts_of(records), "maximize")] == [None] * 3


def test_a_study_without_knock_out_has_no_parts() -> None:
    assert parts_of(table({"a": [0.1]}, {"a": {"size": "small"}})) == []
    assert parts_of(knocked(f"{WITHOUT}lora")) == []


def test_a_part_of_no_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match="no variant 'hole' to compare with; did you mean whole?"):
        contributions(knocked(*THREE), [Part(name="lora", whole="hole", without=f"{WITHOUT}lora")], "maximize")
