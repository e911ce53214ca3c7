"""R7: kills while a checkpoint is written, each at its place; the kill matrix has them at random, S10 is among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab import checkpoint_io
from tests.faults.processes import Forker, Hook
from tests.faults.small_run import Place, Reference, again, differences, resumed

FILES = "ftlab.checkpoint_io"
SLOW = pytest.mark.slow
PLACES = {
    "at the first byte": (Hook(f"{FILES}:_write_synced", call=4), []),
    "in the middle of the file": (Hook(f"{FILES}:_Hashing.write", call=800), [SLOW]),
    "between the bytes and the name": (Hook(f"{FILES}:_write_synced", call=4, after=True), []),
    "between the name and the manifest": (Hook(f"{FILES}:sync_folder", call=4, after=True), [SLOW]),
    "between the manifest's bytes and its name": (Hook(f"{FILES}:_write_synced", call=5, after=True), [SLOW]),
    "in the deletion of an old one": (Hook(f"{FILES}:delete", call=1), []),
    "after the deletion of an old one": (Hook(f"{FILES}:delete", call=2, after=True), [SLOW]),
}


@pytest.mark.parametrize("where", [pytest.param(name, marks=marks) for name, (_, marks) in PLACES.items()])
def test_the_one_before_goes_on(fork: Forker, whole: Reference, tmp_path: Path, where: str) -> None:
    place = Place(tmp_path / "run")
    code, said = fork.run(place.folder, place.first, {**place.env, "TMPDIR": "/dev/shm"}, [PLACES[where][0]])
    assert code == -9, said
    checkpoints = place.run / "checkpoints"
    listed = checkpoint_io.Manifest.read(checkpoints).files
    assert listed
    assert [name for name in listed if checkpoint_io.problem(checkpoints / name)] == []
    half = sorted(checkpoints.glob(".*.tmp"))
    assert bool(half) == (where.startswith(("in the middle", "between the bytes", "between the manifest")))
    control = again(place, tmp_path / "control") if half else None
    code, said = resumed(fork, place)
    assert code == 0, said
    assert "continuing" in said
    assert differences(place, whole) == []
    if control is not None:  # what the killed process left would stay
        assert resumed(fork, control, without=f"{FILES}:clean")[0] == 0
        assert "files differs" in differences(control, whole)
