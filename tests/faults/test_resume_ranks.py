"""Runs that go on with another number of ranks (R11)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.processes import Forker, Hook, codes
from tests.faults.small_run import Place

STEP = "ftlab.module:FinetuneModule.training_step"
HALF = ("--data.batch_size", "1")
"""On two ranks the global batch is then the same."""
LET = ("--allow-data-change", *(f"--override-resume=trainer.{key}" for key in ("devices", "strategy", "accelerator")))


def two(fork: Forker, place: Place, words: Sequence[str], hook: Hook | None = None) -> tuple[list[int], str]:
    """Exit codes of two ranks, and what both said."""
    hooks: dict[int, Sequence[Hook]] = {rank: [hook] for rank in range(2)} if hook else {}
    ranks = fork.ranks(place.folder, words, place.env, hooks)
    return codes(ranks), "".join(rank.text for rank in ranks)


@pytest.fixture(scope="module")
def one(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("one") / "run")
    assert fork.run(place.folder, place.first, place.env, [Hook(STEP, call=8)])[0] == -9
    return place


def test_two_ranks_after_one(fork: Forker, one: Place, tmp_path: Path) -> None:
    shutil.copytree(one.folder, tmp_path / "run", symlinks=True)
    run = tmp_path / "run" / "runs" / "k" / "r"
    before = {p.name: p.read_bytes() for p in (run / "checkpoints").glob("*.ckpt")}
    place = Place(tmp_path / "place")
    words = ["fit", "--resume", str(run), *HALF]
    found, said = two(fork, place, [*words, *LET])
    assert found == [4, 4], said
    assert "the checkpoint was saved by 1 rank, this run has 2: each rank has random state " in said
    assert "Traceback" not in said
    assert {p.name: p.read_bytes() for p in (run / "checkpoints").glob("*.ckpt")} == before
    found, said = two(fork, place, [*words, *LET], Hook("ftlab.continuing:prepare", signal=0))
    assert found == [0, 0], said  # negative control: nobody looks, and the second rank has random state of nowhere


def test_one_rank_after_two(fork: Forker, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    found, said = two(fork, place, [*place.first, *HALF], Hook(STEP, call=8))
    assert -9 in found, said
    words = ["fit", "--resume", str(place.run), "--trainer.devices", "1", "--data.batch_size", "2", *LET]
    code, said = fork.run(place.folder, words, place.env)
    assert code == 4, said
    assert "the checkpoint was saved by 2 ranks, this run has 1: " in said
