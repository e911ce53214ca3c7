"""R10: a power cut takes what was not synced; the run goes on from a checkpoint that was, and loses nothing that it had logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Forker, Hook
from tests.faults.small_run import Place, Reference, differences, resumed

LAYER = str(Path(__file__).with_name("power_layer.py"))  # not imported here: it replaces os.fsync
STEP = "ftlab.module:FinetuneModule.training_step"
CUTS = [
    Hook(STEP, call=14),
    Hook("ftlab.checkpoint_io:_write_synced", call=4, after=True),  # between a checkpoint's bytes and its name
    Hook("ftlab.checkpoint_io:sync_folder", call=4),  # between its name and the folder's sync
    Hook("ftlab.callbacks.checkpoints:_link", call=3),  # before the links, which are for people and not synced
]


def cut(fork: Forker, folder: Path, hook: Hook, off: bool = False) -> Place:
    """A run that a power cut has ended: killed, and then without everything that was not on the disk."""
    place = Place(folder / "run", ["--plugin", LAYER])
    (store := folder / "store").mkdir()
    env = {**place.env, "POWER_LAYER": str(store), **({"POWER_LAYER_OFF": "1"} if off else {})}
    code, said = fork.run(place.folder, place.first, env, [hook])
    assert code == -9, said
    place.run.rename(folder / "before the cut")
    shutil.rmtree(place.folder / "runs")
    log = store / "folders.jsonl"
    synced = dict(json.loads(line) for line in log.read_text().splitlines()) if log.exists() else {}
    rebuild(place.folder / "runs", synced.get(str(place.folder), {}).get("runs"), synced, store)
    return place


def rebuild(path: Path, entry: list[Any] | None, synced: dict[str, dict[str, list[Any]]], store: Path) -> None:
    """Make what the disk holds under a name: a folder as it was when it was last synced, a file's synced bytes, or none."""
    if entry is None:
        return
    kind, value = entry
    if kind == "link":
        path.symlink_to(value)
    elif kind == "file":
        path.write_bytes((store / str(value)).read_bytes() if (store / str(value)).exists() else b"")
    else:
        path.mkdir()
        for name, inner in synced.get(str(path), {}).items():
            rebuild(path / name, inner, synced, store)


@pytest.mark.parametrize("hook", CUTS, ids=lambda hook: hook.target.rpartition(":")[2])
def test_a_power_cut(fork: Forker, whole: Reference, tmp_path: Path, hook: Hook) -> None:
    place = cut(fork, tmp_path, hook)
    code, said = resumed(fork, place)
    assert code == 0, said
    assert "continuing" in said  # from a checkpoint, not from the beginning
    assert differences(place, whole) == []


def test_without_fsync_nothing_is_left(fork: Forker, tmp_path: Path) -> None:
    """The negative control."""
    place = cut(fork, tmp_path, CUTS[0], off=True)
    code, said = resumed(fork, place)
    assert code == 2, said
    assert "is not the folder of a run" in said
