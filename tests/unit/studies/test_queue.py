"""The queue: nothing lost, nothing run twice, and nobody listened to whose trial is another's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftlab.studies.attempts import best
from ftlab.studies.queue import Claim, Queue
from ftlab.studies.reading import records_in
from ftlab.studies.records import TrialRecord
from tests.unit.studies.small_study import TUNED, forget, opened, study

RESULT = {"code": 0, "cpu_seconds": 2.0, "wall_seconds": 3.0}


def claims(queue: Queue) -> Iterator[Claim]:
    while (claim := queue.claim()) is not None:
        yield claim


def names(queue: Queue) -> list[str]:
    """Takes all and completes them."""
    found = []
    for claim in claims(queue):
        found.append(name(claim))
        assert queue.finish(claim, "complete", RESULT, 1.0)
    return found


def name(claim: Claim) -> str:
    return f"{claim.attempt.planned.variant}/{claim.attempt.planned.id}"


def records(queue: Queue) -> dict[str, TrialRecord]:
    found = records_in(queue.store, "s")
    assert len({r.key for r in found}) == len(found)
    return {r.folder.removeprefix("runs/"): r for r in found}


def test_all_trials_are_taken_once_by_two_runners_seeds_in_turns(tmp_path: Path) -> None:
    spec = study(tmp_path)
    first, second = opened(spec, tmp_path), opened(spec, tmp_path)
    taken = []
    for queue in (first, second, first, second):
        claim = queue.claim()
        assert claim is not None
        taken.append(name(claim))
    assert taken == ["r2/seed-0", "r4/seed-0", "r2/seed-1", "r4/seed-1"]
    assert first.claim() is second.claim() is None
    second.refresh()
    assert second.open()
    assert {r.state for r in records(first).values()} == {"running"}


def test_a_trial_that_two_runners_added_runs_once(tmp_path: Path) -> None:
    queue = opened(study(tmp_path), tmp_path)
    for planned in queue.wanted:
        queue._add(planned, 0)  # what a runner does that had looked before the first had added anything
    queue.refresh()
    assert names(queue) == ["r2/seed-0", "r4/seed-0", "r2/seed-1", "r4/seed-1"]
    queue.refresh()
    assert (names(queue), queue.open()) == ([], False)
    assert [r.state for r in records(queue).values()] == ["complete"] * 4
    trials = queue.store.rdb.get_all_trials(queue.store.rdb.get_study_id_from_name("s/seeds"))
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4 + ["FAIL"] * 4


def test_a_runner_taken_for_dead_is_not_listened_to(tmp_path: Path) -> None:
    spec = study(tmp_path, factors=None, seeds=[7])
    slow, other = opened(spec, tmp_path), opened(spec, tmp_path)
    claim = slow.claim()
    assert claim is not None
    other.refresh()
    assert other.claim() is None
    forget(slow.store)
    other.refresh()
    again = other.claim()
    assert again is not None
    assert not slow.beat(claim)
    assert not slow.finish(claim, "complete", RESULT, 1.0)
    assert other.beat(again)
    assert other.finish(again, "complete", RESULT, 2.0)
    assert records(slow)["base/seed-7"].value == 2.0
    assert other.finish(again, "failed", {"code": 1}) is False  # a retry after a connection broke


def test_a_late_result_before_the_takeover_counts_and_one_that_was_half_written_does_not(tmp_path: Path) -> None:
    queue = opened(study(tmp_path, factors=None, seeds=[7]), tmp_path)
    claim = queue.claim()
    assert claim is not None
    queue.store.rdb.set_trial_user_attr(claim.trial, "result", {"outcome": "complete", **RESULT})  # killed before the state was set
    forget(queue.store)
    queue.refresh()
    assert records(queue)["base/seed-7"].state == "waiting"
    assert names(queue) == ["base/seed-7"]


def test_a_trial_whose_runner_dies_as_it_takes_it_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = study(tmp_path, factors=None, seeds=[7])
    dying, other = opened(spec, tmp_path), opened(spec, tmp_path)
    monkeypatch.setattr(dying, "_take", lambda trial: _taken_and_killed(dying, trial, Queue._take))
    with pytest.raises(SystemExit):
        dying.claim()
    forget(other.store)
    other.refresh()
    assert names(other) == ["base/seed-7"]


def _taken_and_killed(queue: Queue, trial: int, take: Any) -> bool:
    take(queue, trial)  # no heartbeat after it
    raise SystemExit


def test_what_crashed_is_tried_again_as_often_as_set_and_anew_by_the_next_command(tmp_path: Path) -> None:
    spec = study(tmp_path, factors=None, seeds=[7], retries=2)
    queue = opened(spec, tmp_path)
    for code in (1, -11, 137):
        queue.refresh()
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, "failed", {**RESULT, "code": code, "error": f"code {code}"})
    queue.refresh()
    assert (queue.claim(), queue.open()) == (None, False)
    record = records(queue)["base/seed-7"]
    assert (record.state, record.error, record.cpu_seconds, record.wall_seconds) == ("failed", "code 137", 6.0, 9.0)
    assert names(opened(spec, tmp_path)) == ["base/seed-7"]
    assert records(queue)["base/seed-7"].state == "complete"


@pytest.mark.parametrize("code", [2, 3, 4, 5, 7])
def test_what_says_why_it_cannot_run_is_not_tried_again(tmp_path: Path, code: int) -> None:
    queue = opened(study(tmp_path, factors=None, seeds=[7]), tmp_path)
    claim = queue.claim()
    assert claim is not None
    queue.finish(claim, "failed", {"code": code})
    queue.refresh()
    assert queue.claim() is None


def test_what_was_stopped_or_lost_costs_no_retry(tmp_path: Path) -> None:
    queue = opened(study(tmp_path, factors=None, seeds=[7], retries=0), tmp_path)
    for _ in range(3):
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, "stopped", {"code": 143, "wall_seconds": 1.0})
        queue.refresh()
    assert records(queue)["base/seed-7"].state == "waiting"
    assert names(queue) == ["base/seed-7"]


def test_seeds_run_with_what_tuning_found_best(tmp_path: Path) -> None:
    queue = opened(study(tmp_path, tune=TUNED), tmp_path)
    found = list(claims(queue))
    assert [name(c) for c in found] == [f"{v}/tune-{n}" for n in range(3) for v in ("r2", "r4")]
    values = {"r2/tune-0": 3.0, "r2/tune-1": 1.0, "r2/tune-2": 1.0, "r4/tune-0": 1.0, "r4/tune-1": 2.0, "r4/tune-2": 0.5}
    for claim in reversed(found):  # in whatever order they end
        failed = name(claim) == "r4/tune-2"
        queue.finish(claim, "failed" if failed else "complete", {"code": 5}, values[name(claim)])
    queue.refresh()
    chosen = {name(c): dict(c.attempt.planned.tuned) for c in claims(queue)}
    lr = {name(c): c.attempt.planned.tuned for c in found}
    assert chosen == {
        "r2/seed-0": lr["r2/tune-1"],
        "r2/seed-1": lr["r2/tune-1"],
        "r4/seed-0": lr["r4/tune-0"],
        "r4/seed-1": lr["r4/tune-0"],
    }
    assert records(queue)["r2/seed-0"].settings == {"model.tuning.r": 2, **lr["r2/tune-1"]}


def test_a_variant_is_compared_with_what_was_chosen_once(tmp_path: Path) -> None:
    spec = study(tmp_path, tune=TUNED, factors=None)
    queue = opened(spec, tmp_path)
    for claim, (outcome, value) in zip(list(claims(queue)), [("complete", 2.0), ("complete", 1.0), ("failed", None)], strict=True):
        queue.finish(claim, outcome, {"code": 5}, value)  # type: ignore[arg-type]
    queue.refresh()
    queue._add(queue.tuning["base"][2], 0)  # what a runner does that had looked before tune-2 failed
    later = opened(spec, tmp_path)
    again = later.claim()
    assert again is not None
    assert name(again) == "base/tune-2"
    later.finish(again, "complete", RESULT, 0.5)
    later.refresh()
    assert names(later) == ["base/seed-0", "base/seed-1"]
    found = records(later)
    assert found["base/seed-0"].tuned == found["base/seed-1"].tuned == found["base/tune-1"].tuned


def test_a_variant_of_which_no_tuning_is_complete_is_not_compared(tmp_path: Path) -> None:
    spec = study(tmp_path, tune=TUNED, factors=None)
    queue = opened(spec, tmp_path)
    for claim in list(claims(queue)):
        queue.finish(claim, "failed", {"code": 5})
    queue.refresh()
    assert (queue.claim(), queue.untuned()) == (None, ["base"])
    assert len(list(claims(opened(spec, tmp_path)))) == 3


def test_ties_go_to_the_first_and_a_direction_is_kept(tmp_path: Path) -> None:
    queue = opened(study(tmp_path, tune=TUNED, factors=None, direction="maximize"), tmp_path)
    for claim, value in zip(list(claims(queue)), (1.0, 2.0, 2.0), strict=True):
        queue.finish(claim, "complete", RESULT, value)
    queue.refresh()
    chosen = best(map(queue.standing, queue.tuning["base"]), "maximize")
    assert chosen is not None
    assert chosen.planned.id == "tune-1"


def test_what_is_tried_depends_on_nothing_but_the_study(tmp_path: Path) -> None:
    first = opened(study(tmp_path / "a", tune=TUNED), tmp_path / "a").tuning
    second = opened(study(tmp_path / "b", tune={**TUNED, "trials": 5}, factors={"model.tuning.r": [4, 8]}), tmp_path / "b").tuning
    assert first["r4"] == second["r4"][:3]
    assert [p.tuned for p in first["r2"]] == [p.tuned for p in first["r4"]]
    assert len({str(p.tuned) for p in second["r4"]}) == 5
    rates = sorted(float(str(p.tuned["model.optimizer.lr"])) for p in first["r2"])
    assert rates[0] < 3e-4 < rates[-1]  # both halves of the range, which three random points need not be


def test_a_small_space_has_no_trial_twice(tmp_path: Path) -> None:
    queue = opened(study(tmp_path, tune={"trials": 8, "space": {"data.batch_size": {"choice": [4, 8]}}}, factors=None), tmp_path)
    assert len(queue.tuning["base"]) == 2
