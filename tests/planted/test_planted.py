"""Each planted bug is found by the check that is meant for it, and by no other."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from ftlab.strategies.base import TuningStrategy
from ftlab.testing.conformance import CHECKS
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite, apart
from tests.planted.meant import MEANT
from tests.planted.sound import Merging, Sound

for _module in ("broken", "broken_models"):
    import_module(f"tests.planted.{_module}")  # which fills MEANT
CASES = [pytest.param(cls, check, id=f"{cls.__name__}-{check}") for cls, check in MEANT.items()]
SAMPLE = [case if n % 4 == 0 else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for n, case in enumerate(CASES)]


def subject(cls: type[TuningStrategy], root: Path) -> Subject:
    return Subject(strategy=cls(), root=root)


@pytest.mark.parametrize(("cls", "check"), SAMPLE)
def test_the_check_that_is_meant_for_it_finds_it(cls: type[TuningStrategy], check: str, tmp_path: Path) -> None:
    with apart(cls), pytest.raises(Exception):  # noqa: B017, PT011  # what a strategy raises is its own
        CHECKS[check].run(subject(cls, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "check"), CASES)
def test_no_other_check_finds_it(cls: type[TuningStrategy], check: str, tmp_path: Path) -> None:
    verdicts = Suite(subject(cls, tmp_path)).run()
    assert [v.check for v in verdicts if v.state == "failed"] == [check]


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Sound, Merging])
def test_the_strategy_without_a_fault_passes(cls: type[TuningStrategy], tmp_path: Path) -> None:
    verdicts = Suite(subject(cls, tmp_path)).run()
    assert {v.state for v in verdicts} <= {"passed", "not applicable"}


def test_every_check_that_a_strategy_can_fail_alone_has_a_bug_planted_for_it() -> None:
    assert set(CHECKS) - set(MEANT.values()) == {"biasless", "causal"}
