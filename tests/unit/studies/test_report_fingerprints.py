"""Runs of one study that should rest on the same rows and weights, and do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlab.studies.records import TrialRecord
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.findings import warnings
from ftlab.studies.report.page import page
from ftlab.studies.report.paper import markdown_table
from tests.unit.studies.tables import trial

METHODS, SEEDS = ("lora", "norms"), (0, 1, 2)
Prints = Callable[[str, int], dict[str, str]]


def run(folder: Path, method: str, seed: int, prints: dict[str, str], **fields: object) -> TrialRecord:
    place = folder / "runs" / method / f"seed-{seed}"
    place.mkdir(parents=True)
    (place / "versions.json").write_text(json.dumps({"fingerprints": prints}))
    settings = {"model.tuning": method, "model.optimizer.lr": 0.1 * seed}
    fields = {"settings": settings, "levels": {"method": method}, "folder": f"runs/{method}/seed-{seed}", **fields}
    return trial(method, seed, 0.5 + 0.1 * seed, **fields)


def study(folder: Path, prints: Prints, **fields: object) -> Digest:
    made = [run(folder, method, seed, prints(method, seed), **fields) for method in METHODS for seed in SEEDS]
    return Digest("s", "val_loss", "minimize", folder, tuple(made))


def changed(digest: Digest) -> list[str]:
    return [text for text in warnings(digest) if "fingerprint" in text]


def test_rows_that_changed_between_runs_are_told_everywhere(tmp_path: Path) -> None:
    made = study(tmp_path, lambda _, seed: {"data": ("new" if seed == 2 else "old") * 10, "base": "same"})
    (found,) = changed(made)
    assert found == (
        "Training rows changed between runs whose settings name the same data: "
        "4 runs have the fingerprint oldoldoldold (first runs/lora/seed-0); "
        "2 runs have the fingerprint newnewnewnew (first runs/lora/seed-2). Their scores should not be compared."
    )
    assert found in page(made)
    assert f"**Beware:** {found}" in markdown_table(made).replace("\\", "")


def test_weights_that_changed_between_runs_of_one_method_are_told(tmp_path: Path) -> None:
    (found,) = changed(study(tmp_path, lambda method, seed: {"data": "d", "base": f"{method}{seed == 2}"}))[:1]
    assert found.startswith("The base model changed between runs whose settings name the same one: 2 runs have the fingerprint loraFalse")
    assert "; 1 run has the fingerprint loraTrue (first runs/lora/seed-2)." in found


@pytest.mark.parametrize("prints", [{"data": "d", "base": "b"}, {}])
def test_runs_that_rest_on_the_same_say_nothing(tmp_path: Path, prints: dict[str, str]) -> None:
    assert changed(study(tmp_path, lambda *_: prints)) == []


@pytest.mark.parametrize("key", ["data.source.path", "data.source", "data.val_split", "data.split_seed"])
def test_what_a_factor_changes_is_no_change(tmp_path: Path, key: str) -> None:
    made = [run(tmp_path, m, s, {"data": m, "base": m}, settings={key: m, "model.tuning": m}) for m in METHODS for s in SEEDS]
    assert changed(Digest("s", "val_loss", "minimize", tmp_path, tuple(made))) == []
    other = [run(tmp_path / "other", m, s, {"data": m}, settings={"data.batch_size": m}) for m in METHODS for s in SEEDS]
    assert len(changed(Digest("s", "val_loss", "minimize", tmp_path / "other", tuple(other)))) == 1


def test_a_strategy_that_quantises_the_base_changes_nothing(tmp_path: Path) -> None:
    assert changed(study(tmp_path, lambda method, _: {"data": "d", "base": method})) == []


def test_a_run_that_failed_has_no_score_to_spoil(tmp_path: Path) -> None:
    made = run(tmp_path, "lora", 0, {"data": "new"}), run(tmp_path, "lora", 1, {"data": "old"}, state="failed")
    assert changed(Digest("s", "val_loss", "minimize", tmp_path, made)) == []
