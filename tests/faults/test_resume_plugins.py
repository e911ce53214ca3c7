"""A run whose plugin is not there any more (L9)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import ftlab
from ftlab.errors import CheckpointError
from tests.faults.conftest import GOOD, Run

PLUGIN = '''
from dataclasses import dataclass
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class OneLayer(TuningStrategy):
    """Trains one matrix."""

    def apply(self, model, heads):
        model.requires_grad_(False)
        model.model.layers[0].self_attn.q_proj.requires_grad_(True)
        return model

    def save(self, model, folder):
        (folder / "nothing.txt").write_text("nothing")
'''
FIT = ("fit", "--config", "good.yaml", "--run.name", "x", "--run.id", "y", "--model.tuning", "OneLayer")
RESUME = ("fit", "--resume", "runs/x/y", "--trainer.max_steps", "2")


def install(folder: Path, version: str, entry: str) -> None:
    """Put a package where an installed one would lie."""
    shutil.rmtree(folder / "one_layer-1.2.0.dist-info", ignore_errors=True)
    info = folder / f"one_layer-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: one-layer\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[ftlab.plugins]\n{entry}\n")
    (folder / "one_layer.py").write_text(PLUGIN)


def plain(folder: Path) -> None:
    """Leave the strategy to the command line."""
    model = {key: value for key, value in GOOD["model"].items() if key != "tuning"}
    (folder / "good.yaml").write_text(yaml.safe_dump({**GOOD, "model": model}))


@pytest.fixture
def installed(folder: Path, warm: Run) -> Path:
    """The folder with a run of a strategy from an installed package."""
    install(folder, "1.2.0", "strategies.OneLayer = one_layer:OneLayer")
    plain(folder)
    result = warm(*FIT)
    assert result.code == 0, result.err
    return folder


def test_an_installed_package(installed: Path, warm: Run) -> None:
    assert warm(*RESUME).code == 0  # while it is there
    shutil.rmtree(installed / "one_layer-1.2.0.dist-info")
    (installed / "one_layer.py").unlink()
    longer = (*RESUME[:-1], "3")
    said = "needs strategy OneLayer from package one-layer==1.2.0, but it is not installed; install that version."
    for words in (longer, ("export", "runs/x/y", "--to", "out", "--checkpoint", "last")):
        result = warm(*words)
        assert result.code == 4, result.err
        assert result.sentence == f"{installed / 'runs/x/y' if words == longer else 'runs/x/y'} {said}"
    with pytest.raises(CheckpointError, match="needs strategy OneLayer from package one-layer==1.2.0, but it is not installed"):
        ftlab.load(installed / "runs" / "x" / "y", "last")
    assert warm(*longer, without=["ftlab.origins:require"]).code == 7  # negative control: a class from nowhere


def test_another_version_that_has_it_not(installed: Path, warm: Run) -> None:
    install(installed, "2.0", "strategies.TwoLayers = one_layer:TwoLayers")
    result = warm(*RESUME)
    assert result.code == 4, result.err
    assert result.sentence.endswith("one-layer==1.2.0, but version 2.0 is installed and has no one_layer.OneLayer; install that version.")


def test_another_version_that_has_it(installed: Path, warm: Run) -> None:
    """D11."""
    install(installed, "1.3.0", "strategies.OneLayer = one_layer:OneLayer")
    result = warm(*RESUME)
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "->" in line]
    assert line.split() == ["one-layer", "1.2.0", "->", "1.3.0"]
    assert "the claim that the run goes on to the last bit is withdrawn" in result.err


def test_within_another(folder: Path, warm: Run) -> None:
    install(folder, "1.2.0", "strategies.OneLayer = one_layer:OneLayer")
    plain(folder)
    both = "[{class_path: OneLayer}, {class_path: LoRA, init_args: {target_modules: [v_proj]}}]"
    result = warm(*FIT[:-1], "Compose", "--model.tuning.strategies", both)
    assert result.code == 0, result.err
    shutil.rmtree(folder / "one_layer-1.2.0.dist-info")
    (folder / "one_layer.py").unlink()
    result = warm(*RESUME)
    assert result.code == 4, result.err
    assert "needs strategy OneLayer from package one-layer==1.2.0, but it is not installed" in result.sentence


def test_a_file(folder: Path, warm: Run) -> None:
    (folder / "one_layer.py").write_text(PLUGIN)
    plain(folder)
    plugin = ("--plugin", "one_layer.py")
    result = warm(*FIT, *plugin)
    assert result.code == 0, result.err
    result = warm(*RESUME)
    assert result.code == 4, result.err
    assert result.sentence == f"{folder / 'runs/x/y'} needs strategy OneLayer from --plugin one_layer.py; add that."
    assert warm(*RESUME, *plugin).code == 0
