"""Folders of which a part is missing: an export that was cut off, a base without one of its shards (K11, K12)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import ftlab
from ftlab.backbone import ASSETS
from ftlab.errors import CheckpointError
from tests.faults.bad_run import PLUGIN
from tests.faults.conftest import Result, Run
from tests.faults.damage import built_in

KILL = """
import os, peft
peft.LoraConfig.save_pretrained = lambda config, folder: os.kill(os.getpid(), 9)  # the weights are written, the configuration is not
"""
DIRECT = """
import contextlib, ftlab.export
@contextlib.contextmanager
def published(target):
    target.mkdir()
    yield target
ftlab.export.published = published
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    return built_in(tmp_path_factory.mktemp("run"), _warm)


def never_half(result: Result, target: Path) -> None:
    """The export was killed between its two files, and nothing has its name."""
    assert result.code == -9, result.err
    assert not target.exists()


def test_an_export_that_is_killed_between_two_files_is_not_seen(folder: Path, warm: Run, run: Path) -> None:
    """K11; what is left does not stand in the way of the next try."""
    (folder / "kill.py").write_text(KILL + PLUGIN)
    never_half(warm("export", str(run), "--to", "out", "--plugin", "kill.py"), folder / "out")
    result = warm("export", str(run), "--to", "out")
    assert result.code == 0, result.err
    ftlab.load(folder / "out")


@pytest.mark.slow
def test_half_an_export_in_its_own_place_would_be_seen(folder: Path, warm: Run, run: Path) -> None:
    """K11, control; and what is seen is refused."""
    (folder / "kill.py").write_text(KILL + DIRECT + PLUGIN)
    result = warm("export", str(run), "--to", "out", "--plugin", "kill.py")
    with pytest.raises(AssertionError):
        never_half(result, folder / "out")
    assert (folder / "out" / "adapter_model.safetensors").is_file()
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        ftlab.load(folder / "out", base="ftlab/tiny-llama")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The built-in model in several files."""
    place = shutil.copytree(ASSETS / "tiny-llama", tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(ASSETS / "tiny-llama").save_pretrained(place, max_shard_size="1MB")
    assert len(shards(place)) > 1
    return place


def shards(place: Path) -> list[Path]:
    return sorted(place.glob("model-*.safetensors"))


def gone(place: Path) -> str:
    """Delete a shard."""
    name = shards(place)[1].name
    (place / name).unlink()
    return name


def renamed(place: Path) -> str:
    """Let the index name a file that is not there."""
    path = place / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][min(index["weight_map"])] = "model-00099-of-00002.safetensors"
    path.write_text(json.dumps(index))
    return "model-00099-of-00002.safetensors"


def names_the_shard(result: Result, shard: str) -> None:
    assert result.code == 4, result.err
    assert f"lacks {shard}, which model.safetensors.index.json names" in result.sentence


@pytest.mark.parametrize("damage", [gone, renamed])
def test_a_base_without_a_shard_is_refused(warm: Run, sharded: Path, damage: Callable[[Path], str]) -> None:
    """K12, and its control: what transformers says of it names no shard, or is no error of ours."""
    words = ("fit", "--config", "good.yaml", "--model.backbone.name", str(sharded))
    assert warm(*words).code == 0
    shard = damage(sharded)
    names_the_shard(warm(*words), shard)
    with pytest.raises(CheckpointError, match=f"lacks {shard}"):
        ftlab.load(sharded)
    with pytest.raises(AssertionError):
        names_the_shard(warm(*words, without=["ftlab.backbone:require_weights"]), shard)
