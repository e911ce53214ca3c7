"""What is pruned: never for what failed, and never all of a variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlab.studies.queue import Claim, Queue
from ftlab.studies.reading import records_in
from tests.unit.studies.small_study import TUNED, opened, study

ASHA: dict[str, Any] = {"asha": {"min_resource": 1, "reduction_factor": 2}}
EAGER: dict[str, Any] = {"asha": {"min_resource": 1, "bootstrap_count": 9}}
"""Ends whatever it may."""


def tuning(folder: Path, stop: dict[str, Any] = EAGER, **keys: Any) -> tuple[Queue, list[Claim]]:
    """A queue whose three trials of tuning have been taken."""
    queue = opened(study(folder, tune=TUNED, factors=None, seeds=1, retries=0, stop=stop, **keys), folder)
    return queue, taken(queue)


def taken(queue: Queue) -> list[Claim]:
    queue.refresh()
    found = []
    while (claim := queue.claim()) is not None:
        found.append(claim)
    return found


def ids(claims: list[Claim]) -> list[str]:
    return [claim.attempt.planned.id for claim in claims]


def states(queue: Queue) -> list[str]:
    return [r.state for r in sorted(records_in(queue.store, "s"), key=lambda r: r.folder) if r.phase == "tune"]


def ended(queue: Queue, claims: list[Claim], *values: float | None) -> None:
    """Prunes what has a value, and lets the others fail."""
    for claim, value in zip(claims, values, strict=True):
        assert queue.finish(claim, "failed" if value is None else "pruned", {"code": 5 if value is None else 143}, value)


@pytest.mark.parametrize("outcome", ["failed", "timeout", "invalid"])
def test_nothing_is_ended_for_one_that_did_not_end_well(tmp_path: Path, outcome: Any) -> None:
    queue, (best, sound, _) = tuning(tmp_path, ASHA)
    assert [queue.hopeless(best, step, 0.1) for step in (1, 2)] == [False, False]
    assert queue.finish(best, outcome, {"code": 5})
    assert [queue.hopeless(sound, step, 1.0) for step in (1, 2)] == [False, False]


def test_one_is_ended_for_a_better_one_that_runs_or_is_complete(tmp_path: Path) -> None:
    queue, (best, worse, other) = tuning(tmp_path, ASHA)
    assert not queue.hopeless(best, 1, 0.1)
    assert queue.hopeless(worse, 1, 1.0)
    ended(queue, [worse], 1.0)
    assert queue.finish(best, "complete", {"code": 0}, 0.1)
    assert queue.hopeless(other, 1, 1.0)


def test_the_only_one_that_is_left_is_not_ended(tmp_path: Path) -> None:
    queue, (first, second, third) = tuning(tmp_path)
    assert queue.hopeless(first, 1, 1.0)
    ended(queue, [first, second], 1.0, None)
    assert not queue.hopeless(third, 1, 2.0)


def test_the_best_of_those_that_were_ended_goes_on_where_nothing_is_complete(tmp_path: Path) -> None:
    queue, claims = tuning(tmp_path)
    ended(queue, claims, 2.0, 1.0, None)
    [again] = taken(queue)
    assert (ids([again]), queue.hopeless(again, 1, 9.0)) == (["tune-1"], False)
    queue.finish(again, "complete", {"code": 0}, 0.5)
    [compared] = taken(queue)
    assert compared.attempt.planned.tuned == claims[1].attempt.planned.tuned
    assert states(queue) == ["pruned", "complete", "failed"]


def test_each_of_them_goes_on_until_one_is_complete(tmp_path: Path) -> None:
    queue, claims = tuning(tmp_path, direction="maximize")
    ended(queue, claims, 2.0, 1.0, 3.0)
    for expected in ("tune-2", "tune-0", "tune-1"):
        [again] = taken(queue)
        assert ids([again]) == [expected]
        queue.finish(again, "stopped", {"code": 143})  # costs nothing
        ended(queue, taken(queue), None)
    assert (taken(queue), queue.untuned(), states(queue)) == ([], ["base"], ["failed"] * 3)


def test_two_runners_let_it_go_on_once(tmp_path: Path) -> None:
    queue, claims = tuning(tmp_path)
    ended(queue, claims, 2.0, 1.0, None)
    other = Queue(queue.store, queue.spec)
    for each in (queue, other):
        each._read()
        each._plan()
    for each in (queue, other):
        each._add(each._spared()[0], 0)
    assert ids(taken(queue)) == ["tune-1"]
    assert taken(other) == []


def test_a_study_that_was_left_without_a_choice_goes_on(tmp_path: Path) -> None:
    queue, claims = tuning(tmp_path)
    ended(queue, claims, 2.0, 1.0, None)
    later = opened(queue.spec, tmp_path)
    found = taken(later)
    assert ids(found) == ["tune-2"], "what failed is tried again first"
    ended(later, found, None)
    assert ids(taken(later)) == ["tune-1"]
