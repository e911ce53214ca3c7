"""`--plugin`: classes from a file or a module that nobody installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.plugin.conftest import Run

NORMS = """
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ftlab.strategies.base import TuningStrategy
from torch import nn


@dataclass(frozen=True, kw_only=True)
class {name}(TuningStrategy):
    depth: int = 1

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.requires_grad_(False)
        model.get_submodule("model.norm").requires_grad_(True)
        return {result}
"""
ROWS = """
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftlab.data.sources.base import DataSource
from ftlab.rows import Row


@dataclass(frozen=True, kw_only=True)
class Counting(DataSource):
    rows_per_split: int

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation")

    def rows(self, split: str) -> Iterator[Row]:
        yield from ({"text": f"{split} has a row number {i}"} for i in range(self.rows_per_split))
"""
QUICK = [
    "--model.backbone.name", "ftlab/tiny-llama", "--model.task", "CausalLM", "--model.task.block_size", "16",
    "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--run.name", "given", "--run.id", "one",
]  # fmt: skip


@pytest.fixture
def plugins(tmp_path: Path) -> list[str]:
    """Three files in a folder beside the run's own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "my_strategy.py").write_text(NORMS.format(name="LastNorm", result="model"))
    (folder / "my_other.py").write_text(NORMS.format(name="Forgetful", result="None"))
    (folder / "my_rows.py").write_text(ROWS)
    # Would be imported in place of the package if the folder were on the search path.
    (folder / "safetensors.py").write_text("raise SystemExit('the folder of a plugin is on the search path')\n")
    return [word for stem in ("my_strategy", "my_other", "my_rows") for word in ("--plugin", f"elsewhere/{stem}.py")]


def test_several_files_with_short_and_long_names(run: Run, plugins: list[str], tmp_path: Path) -> None:
    source = ["--data.source", "my_rows.Counting", "--data.source.rows_per_split", "12"]
    run("fit", *plugins, *QUICK, "--model.tuning", "LastNorm", "--model.tuning.depth", "2", *source)
    folder = tmp_path / "runs" / "given" / "one"
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["model"]["tuning"] == {"class_path": "my_strategy.LastNorm", "init_args": {"depth": 2}}
    assert set(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]) == {"model.model.norm.weight"}

    # Its config.yaml names the class; the code comes from the command line or not at all.
    error = run("validate", "--config", str(folder / "config.yaml"), code=7).stderr
    assert "names the class my_strategy.LastNorm, which is neither an installed plugin nor given by --plugin" in error


@pytest.mark.slow
def test_a_module_that_is_on_the_path_but_not_registered(run: Run, site: Path) -> None:
    (site / "loose_norms.py").write_text(NORMS.format(name="LooseNorm", result="model"))
    source = ["--data.source", "Rows", "--data.source.items", '[{"text": "one two three four five six seven eight nine"}]']
    run("fit", "--plugin", "loose_norms", *QUICK, "--model.tuning", "LooseNorm", *source, "--data.val_split", "null")


@pytest.mark.slow
def test_an_apply_that_returns_nothing(run: Run, plugins: list[str]) -> None:
    source = ["--data.source", "Counting", "--data.source.rows_per_split", "12"]
    error = run("fit", *plugins, *QUICK, "--model.tuning", "Forgetful", *source, code=2).stderr
    assert "ftlab: error: Forgetful.apply returned None; apply(self, model, heads) must return the module to train." in error


@pytest.mark.slow
def test_every_rank_gets_the_plugin(run: Run, plugins: list[str], tmp_path: Path) -> None:
    source = ["--data.source", "Counting", "--data.source.rows_per_split", "64"]
    run("fit", *plugins, *QUICK, "--model.tuning", "LastNorm", *source, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert (tmp_path / "runs" / "given" / "one" / "summary.json").is_file()
