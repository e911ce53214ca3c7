"""Each planted bug is found by the check that is meant for it, and by no other."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ftlab import registry
from ftlab.testing.conformance import OF_KIND
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.sources.subject import SourceSubject, put_files
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite, apart
from ftlab.testing.conformance.tasks.subject import TaskSubject
from tests.planted.meant import MEANT
from tests.planted.sound import Merging, Sound
from tests.planted.sound_source import SoundSource
from tests.planted.sound_task import ROWS, SoundTask

for _module in ("broken", "broken_models", "broken_tasks", "broken_sources"):
    import_module(f"tests.planted.{_module}")  # which fills MEANT
CASES = [pytest.param(cls, check, id=f"{cls.__name__}-{check}") for cls, check in MEANT.items()]
SAMPLE = [case if n % 4 == 0 else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for n, case in enumerate(CASES)]
ALONE = {"strategies": {"biasless", "causal"}, "tasks": {"resumes", "runs"}, "data": {"documented", "yaml"}}
"""Checks that nothing fails alone, or that another kind has a bug for."""


def subject(cls: Any, root: Path) -> Examined:
    if issubclass(cls, SoundTask):
        return TaskSubject(task=cls(), rows=ROWS, root=root)
    if issubclass(cls, SoundSource):
        places = put_files(cls.sample.files, root)
        return SourceSubject(source=cls(path=str(places["lines.txt"])), files=[places["lines.txt"]], root=root)
    return Subject(strategy=cls(), root=root)


@pytest.mark.parametrize(("cls", "check"), SAMPLE)
def test_the_check_that_is_meant_for_it_finds_it(cls: type, check: str, tmp_path: Path) -> None:
    made = subject(cls, tmp_path)
    with apart(made), pytest.raises(Exception):  # noqa: B017, PT011  # what a plugin raises is its own
        made.checks[check].run(made)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "check"), CASES)
def test_no_other_check_finds_it(cls: type, check: str, tmp_path: Path) -> None:
    verdicts = Suite(subject(cls, tmp_path)).run()
    assert [v.check for v in verdicts if v.state == "failed"] == [check]


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Sound, Merging])
def test_the_strategy_without_a_fault_passes(cls: type, tmp_path: Path) -> None:
    verdicts = Suite(subject(cls, tmp_path)).run()
    assert {v.state for v in verdicts} <= {"passed", "not applicable"}


@pytest.mark.parametrize("cls", [SoundTask, SoundSource])
def test_the_task_and_the_source_without_a_fault_pass(cls: type, tmp_path: Path) -> None:
    verdicts = Suite(subject(cls, tmp_path)).run()
    assert {v.state for v in verdicts} == {"passed"}


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_every_check_that_can_be_failed_alone_has_a_bug_planted_for_it(kind: str, tmp_path: Path) -> None:
    planted = {check for cls, check in MEANT.items() if subject(cls, tmp_path).kind == kind}
    assert set(OF_KIND[kind]) - planted == ALONE[kind]
