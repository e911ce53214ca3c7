"""What a study asks for: the same for the same file, and each variant's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlab.studies.engine import run_study
from ftlab.studies.planned import tuning
from ftlab.studies.queue import Queue
from ftlab.studies.spec import parse
from ftlab.studies.variants import variants
from tests.unit.studies import files
from tests.unit.studies.small_study import TUNED, Fits, forget, opened, study, table

RATE, DECAY = "model.optimizer.lr", "model.optimizer.weight_decay"


def drawn(folder: Path, space: dict[str, Any], trials: int = 5, seed: int = 1000) -> list[dict[str, object]]:
    spec = parse(files.study(folder, factors=None, tune={"trials": trials, "space": space, "seed": seed}))
    return [{**one.tuned} for one in tuning(spec, variants(spec)[0])]


def test_the_order_of_a_space_changes_nothing(tmp_path: Path) -> None:
    space = {
        RATE: {"log_uniform": [1e-5, 1e-2]},
        DECAY: {"uniform": [0, 0.1]},
        "data.group_by_length": {"choice": [True, False]},
        "data.batch_size": {"choice": [1, 2, 4, 8]},
    }
    found = drawn(tmp_path, space)
    assert found == drawn(tmp_path, dict(reversed(space.items()))) == drawn(tmp_path, dict(sorted(space.items())))
    assert len({str(one) for one in found}) == 5


@pytest.mark.parametrize("seed", range(7, 12))
def test_a_point_is_not_drawn_twice_and_a_small_space_is_searched_whole(tmp_path: Path, seed: int) -> None:
    space = {RATE: {"choice": [1e-4, 1e-3, 1e-2]}, "data.batch_size": {"int": [1, 3]}}
    found = [drawn(tmp_path, space, trials, seed) for trials in (3, 8, 9, 50)]
    assert [len({str(one) for one in each}) for each in found] == [len(each) for each in found] == [3, 8, 9, 9]
    assert found[0] == found[1][:3] == found[3][:3]


class Near(Fits):
    """Runs that are the better the nearer r is to 4."""

    def _write(self, run: Path, value: float) -> None:
        super()._write(run, abs(self.words[-1].get("model.tuning.r", 2) - 4) + value)


def test_a_variant_whose_tuning_finds_another_is_compared_all_the_same(tmp_path: Path, quick: None) -> None:
    per = {"tuned": {"space": {"model.tuning.r": {"choice": [4, 8]}}}}
    spec = study(
        tmp_path, factors={"size": {"fixed": {"model.tuning.r": 4}, "tuned": {}}},
        tune={"trials": 8, "space": {RATE: {"choice": [1e-3, 1e-2]}}, "per": per},
    )  # fmt: skip
    assert run_study(spec, tmp_path, workers=2, start=(fits := Near())) == 0
    found = table(tmp_path)
    assert {r.state for r in found.values()} == {"complete"}
    assert found.keys() >= {f"{v}/seed-{s}" for v in ("tuned", "fixed") for s in (0, 1)}
    assert found["tuned/seed-0"].settings == found["fixed/seed-0"].settings
    assert len(fits.started) == len(found) == len(set(fits.started))
    again = opened(spec, tmp_path)
    assert (again.claim(), again.states()) == (None, {"complete": len(found)})


def ended(queue: Queue, dies: str) -> dict[str, bool]:
    """Which trials of tuning the pruner ends; the runner of one of them dies when it has reported."""
    found: dict[str, bool] = {}
    values = {"tune-0": 0.5, "tune-1": 0.3, "tune-2": 0.4, "tune-3": 0.45}
    while True:
        if (claim := queue.claim()) is None:
            queue.refresh()
            claim = queue.claim()
        assert claim is not None
        one = claim.attempt.planned
        if one.phase == "seeds":
            return found
        hopeless = queue.hopeless(claim, 1, values[one.id])
        if one.id == dies:
            dies = ""
            forget(queue.store)
            queue.refresh()
            continue
        found[one.id] = hopeless
        assert queue.finish(claim, "pruned" if hopeless else "complete", {}, values[one.id])


def test_an_attempt_that_was_lost_does_not_compete(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "factors": None,
        "tune": {**TUNED, "trials": 4},
        "stop": {"asha": {"min_resource": 1, "reduction_factor": 2}},
    }
    found = [ended(opened(study(tmp_path / f"died-{dies}", **changes), tmp_path / f"died-{dies}"), dies) for dies in ("", "tune-0")]
    assert found == [{"tune-0": False, "tune-1": False, "tune-2": True, "tune-3": True}] * 2
