"""`ftlab ablate --dry-run` of a study that has begun: what it will cost, and whether it would go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlab.studies.attempts import Outcome
from ftlab.studies.spec import parse
from tests.unit.studies.files import BASE, Dry, study, write
from tests.unit.studies.small_study import opened


def run_some(tmp_path: Path, ends: list[tuple[Outcome, dict[str, Any]]], **keys: Any) -> None:
    """Begin the study that `dry` looks at, and let trials of it end."""
    folder = tmp_path / "studies" / "first"
    folder.mkdir(parents=True)
    queue = opened(parse(study(tmp_path, **keys)), folder)
    for outcome, result in ends:
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, outcome, result, 1.0)
    queue.store.close()


def test_the_cost_comes_from_what_has_run_so_far(dry: Dry, tmp_path: Path) -> None:
    times: list[tuple[Outcome, int, int]] = [
        ("complete", 60, 30),
        ("complete", 120, 50),
        ("failed", 1, 1),
        ("pruned", 5, 5),
        ("pruned", 5, 5),
    ]
    ends = [(outcome, {"wall_seconds": wall, "cpu_seconds": cpu}) for outcome, wall, cpu in times]
    run_some(tmp_path, [*ends, ("complete", {})])
    before = (tmp_path / "studies" / "first" / "study.db").read_bytes()
    assert dry("--workers", "2").out.splitlines()[-1] == (
        "cost: about 3.8 minutes, and 3.3 minutes of processor time, for 5 runs; "
        "from 90 seconds and 40 seconds for each of the 2 that are complete"
    )
    assert (tmp_path / "studies" / "first" / "study.db").read_bytes() == before
    assert (
        dry("--storage", f"sqlite:///{tmp_path}/studies/first/study.db", "--root", "elsewhere")
        .out.splitlines()[-1]
        .startswith("cost: about")
    )


@pytest.mark.parametrize(
    ("factors", "work"),
    [
        ({"trainer.max_epochs": [1, 2]}, "15 epochs of the training rows"),
        (
            {"long": {"yes": {"trainer.max_epochs": 2}, "no": {"trainer.max_steps": 3}}},
            "15 steps on 120 rows on each device and 10 epochs of the",
        ),
        ({"long": {"yes": {"trainer.max_epochs": -1}, "no": {"trainer.max_steps": 3}}}, None),
    ],
    ids=str,
)
def test_the_work_where_epochs_limit_it(dry: Dry, factors: dict[str, Any], work: str | None) -> None:
    out = dry(content={**BASE, "trainer": {}}, factors=factors).out
    assert f"\nwork: at most {work}" in out if work else "work:" not in out


@pytest.mark.parametrize(
    ("keys", "code", "sentence"),
    [
        ({"seeds": [0, 1, 7]}, 0, "changed: seeds has 7 more; needs --extend"),
        ({"seeds": [0, 7]}, 2, "been run with other settings: seeds no longer has 1; undo it, or choose a new name."),
        ({"name": "second"}, 2, "holds the study 'second', not first"),
        ({}, 0, "cost: not known"),
    ],
    ids=str,
)
def test_a_study_that_would_be_refused_is_refused(dry: Dry, tmp_path: Path, keys: dict[str, Any], code: int, sentence: str) -> None:
    run_some(tmp_path, [], seeds=[0, 1])
    if "name" in keys:
        write(tmp_path / "studies" / "first" / "study.yaml", keys)
        keys = {}
    found = dry(**{"seeds": [0, 1], **keys})
    assert (found.code, sentence in (found.err if code else found.out.splitlines()[-1])) == (code, True)
