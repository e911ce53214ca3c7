"""Checkpoints that are damaged, mixed up or hostile: none is accepted, and a run goes back to its last good one (K1, K2, K13, X1)."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlab import checkpoint_io
from ftlab.checkpoint_io import MANIFEST, Manifest
from ftlab.commands.verify import equal
from ftlab.errors import CheckpointError, SecurityError
from tests.faults.conftest import Result, Run
from tests.faults.damage import BEFORE, NEWEST, Whole, built_in, killed, optimiser_nan, rewrite, vouch, whole
from tests.faults.damage_matrix import cases, controls, matrix


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    return built_in(tmp_path_factory.mktemp("run"), _warm)


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return killed(original, tmp_path / "y")


def test_a_stranger_in_the_folder_is_not_in_the_manifest(run: Path) -> None:
    stranger = run / "checkpoints" / "step-00000009.ckpt"
    shutil.copy(run / "checkpoints" / NEWEST, stranger)
    with pytest.raises(CheckpointError, match="is not listed"):
        checkpoint_io.load(stranger)
    found = checkpoint_io.newest(run / "checkpoints")
    assert found is not None
    assert found.name == NEWEST


def test_a_link_to_another_runs_file_is_not_taken_for_the_own(run: Path, original: Path) -> None:
    path = run / "checkpoints" / NEWEST
    path.unlink()
    path.symlink_to(original / "checkpoints" / NEWEST)
    found = checkpoint_io.newest(run / "checkpoints")
    assert found is not None
    assert found.name == BEFORE


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"format": 1}', '{"format": 2, "files": {}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"../../x": {"sha256": "", "bytes": 0, "step": 9, "epoch": 0}}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"a": {"sha256": "", "bytes": 0, "step": "9", "epoch": 0}}, "best": null, "best_value": null}',
        '{"format": 1, "files": {"a": {"step": 9}}, "best": null, "best_value": null}',
        '{"format": 1, "files": ["a"], "best": null, "best_value": null}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(run: Path, text: str) -> None:
    """K13 of the manifest, and whatever else may stand in it."""
    (run / "checkpoints" / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="manifest.json"):
        checkpoint_io.newest(run / "checkpoints")


def resume(warm: Run, run: Path, *without: str) -> Result:
    return warm("fit", "--resume", str(run), without=without)


def went_back(result: Result, run: Path, original: Path) -> None:
    """The run says what is wrong, goes back by one checkpoint, and ends as if nothing had been."""
    assert result.code == 0, result.err
    assert f"{NEWEST} " in result.err
    assert f"going back to {BEFORE}" in result.err
    assert (run / "summary.json").is_file()
    assert Manifest.read(run / "checkpoints").newest_first()[0] == NEWEST  # trained and written anew
    last, expected = (checkpoint_io.load(place / "checkpoints" / NEWEST) for place in (run, original))
    assert all(equal(last[part], expected[part]) for part in ("state_dict", "optimizer_states", "global_step"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_checkpoint_sends_the_run_back_to_the_one_before(run: Path, original: Path, warm: Run, share: float) -> None:
    """K1, and its control: without the manifest's word the cut file is the one that is tried."""
    path = run / "checkpoints" / NEWEST
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    if share == 0.3:
        with pytest.raises(AssertionError):
            went_back(resume(warm, run, "ftlab.checkpoint_io:problem"), run, original)
    went_back(resume(warm, run), run, original)


def test_a_flipped_bit_sends_the_run_back_to_the_one_before(run: Path, original: Path, warm: Run) -> None:
    """K2, and its control: nothing else sees it."""
    path = run / "checkpoints" / NEWEST
    content = bytearray(path.read_bytes())
    place = content.index(next(iter(checkpoint_io.load(path)["state_dict"].values())).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    copy = shutil.copytree(run, run.with_name("control"), symlinks=True)
    went_back(resume(warm, run), run, original)
    result = resume(warm, copy, "ftlab.checkpoint_io:problem")
    assert result.code == 0
    with pytest.raises(AssertionError):
        went_back(result, copy, original)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> tuple[Run, Whole]:
    """What the matrix runs, and what it damages."""
    return _warm, whole(tmp_path_factory.mktemp("whole"), _warm)


def test_of_a_sample_of_damaged_files_none_is_accepted(bench: tuple[Run, Whole], tmp_path: Path) -> None:
    """K1-K10, a sample; `python -m tests.faults.damage_matrix` does them all and counts them."""
    tally = matrix(tmp_path, *bench, sample=8)
    assert tally.wrong == []


def test_the_whole_matrix_has_three_hundred_damaged_files() -> None:
    assert len(cases()) >= 300


@pytest.mark.slow
def test_every_check_of_the_matrix_is_needed(bench: tuple[Run, Whole], tmp_path: Path) -> None:
    """K2, K3, K5-K8, controls: with a check left out, what it is for is accepted."""
    assert controls(tmp_path, *bench) == []


@pytest.mark.slow
def test_of_all_damaged_files_none_is_accepted(bench: tuple[Run, Whole], tmp_path: Path) -> None:
    """K1-K10."""
    assert matrix(tmp_path, *bench).wrong == []


def _none_good(run: Path) -> None:
    for path in (run / "checkpoints").glob("step-*"):
        path.write_bytes(b"")


def _no_manifest(run: Path) -> None:
    (run / "checkpoints" / MANIFEST).unlink()


def _old_format(run: Path) -> None:
    manifest = json.loads((run / "checkpoints" / MANIFEST).read_text())
    (run / "checkpoints" / MANIFEST).write_text(json.dumps(manifest | {"format": 0}))


def _nan(run: Path) -> None:
    content = checkpoint_io.load(run / "checkpoints" / NEWEST)
    next(iter(content["state_dict"].values())).fill_(float("nan"))
    rewrite(run / "checkpoints" / NEWEST, content)


def _optimiser(run: Path) -> None:
    optimiser_nan(run / "checkpoints" / NEWEST, random.Random(0))
    vouch(run / "checkpoints" / NEWEST)


@pytest.mark.parametrize("damage", [_none_good, _no_manifest, _old_format, _nan, _optimiser])
def test_the_command_refuses_a_run_without_a_good_checkpoint(run: Path, warm: Run, damage: Callable[[Path], None]) -> None:
    """K1 where none is good; K13 of the manifest; K8 of weights and of the optimiser's moments."""
    damage(run)
    metrics = (run / "metrics.jsonl").read_bytes()
    result = resume(warm, run)
    assert result.code == 4, result.err
    assert result.err.splitlines()[-1].startswith("ftlab: error: ")
    assert "Traceback" not in result.err
    if damage not in (_nan, _optimiser):
        assert (run / "metrics.jsonl").read_bytes() == metrics  # nothing was begun


@pytest.mark.parametrize("damage", [_nan, _optimiser])
def test_without_a_look_at_the_numbers_they_are_taken(run: Path, warm: Run, damage: Callable[[Path], None]) -> None:
    """K8, control: the manifest vouches for them, and nothing else looks."""
    damage(run)
    assert resume(warm, run, "ftlab.checkpoint:verify").code != 4


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_code_is_not_opened(run: Path, warm: Run, tmp_path: Path) -> None:
    marker = tmp_path / "PWNED"
    path = run / "checkpoints" / NEWEST
    rewrite(path, {**checkpoint_io.load(path), "payload": Payload(marker)})
    with pytest.raises(SecurityError, match="could run code"):
        checkpoint_io.load(path)
    result = resume(warm, run)
    assert result.code == 7, result.err
    result = warm("fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(path))
    assert result.code == 7, result.err
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the payload is live
    assert marker.exists()


@pytest.mark.parametrize("path", ["https://example.org/last.ckpt", "s3://bucket/last.ckpt", "memory://last.ckpt"])
def test_a_checkpoint_from_elsewhere_is_not_fetched(warm: Run, path: str) -> None:
    assert warm("fit", "--config", "good.yaml", "--ckpt_path", path).code == 7
    with pytest.raises(SecurityError):
        checkpoint_io.load(path)
