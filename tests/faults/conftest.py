"""The command line in processes of their own, forked from one that has paid for the imports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab import registry
from tests.faults.adapter_files import export
from tests.faults.drift_run import FIT, write
from tests.faults.forking import Result as Result
from tests.faults.forking import Run as Run
from tests.faults.forking import served
from tests.faults.processes import Forker, Hook
from tests.faults.small_run import EPOCHS, THREES, Place, Reference, killed, reference

GOOD: dict[str, Any] = {
    "model": {
        "backbone": {"name": "ftlab/tiny-llama"},
        "task": {"class_path": "CausalLM", "init_args": {"block_size": 16}},
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2}},
    },
    "data": {
        "source": {
            "class_path": "Rows",
            "init_args": {"items": [{"text": f"Returns the number of bytes that were written to {n}."} for n in range(4)]},
        },
        "val_split": None,
    },
    "trainer": {"max_steps": 1},
}
"""A configuration that runs, in seconds."""


def names(kind: str) -> str:
    """The plugins of a kind, as a message lists them; a stranger's may be installed too."""
    return ", ".join(p.name for p in registry.plugins(kind))


@pytest.fixture(scope="session")
def _cold() -> Iterator[Run]:
    with served("ftlab.main") as run:
        yield run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with `good.yaml`."""
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(GOOD))
    return tmp_path


@pytest.fixture
def cold(_cold: Run, folder: Path) -> Run:
    """`ftlab` in `folder`; torch was not imported before."""
    return lambda *arguments, env=None, without=(): _cold(folder, *arguments, env=env, without=without)


@pytest.fixture
def warm(_warm: Run, folder: Path) -> Run:
    """The same with torch and Lightning imported before; `without` names functions that a negative control leaves out."""
    return lambda *arguments, env=None, without=(): _warm(folder, *arguments, env=env, without=without)


@pytest.fixture(scope="session")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The small run that was left alone."""
    return reference(fork, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="session")
def threes(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The same with windows of three micro-batches, and of two at the end of an epoch."""
    return reference(fork, tmp_path_factory.mktemp("threes") / "run", THREES, steps=2 * EPOCHS)


@pytest.fixture(scope="session")
def stopped(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that was killed in its seventh step, for what is refused before anything is written."""
    return killed(fork, tmp_path_factory.mktemp("stopped"), Hook("ftlab.module:FinetuneModule.training_step", call=12))


@pytest.fixture(scope="session")
def _drifting(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    write(folder)
    result = _warm(folder, *FIT)
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def drifting(_drifting: Path, folder: Path) -> Path:
    """A run of two steps, in a folder of its own with all that it was made from."""
    shutil.copytree(_drifting, folder, symlinks=True, dirs_exist_ok=True)
    return folder / "runs" / "x" / "y"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ftlab exports of a LoRA run."""
    return export(tmp_path_factory.mktemp("adapter") / "good")


@pytest.fixture
def good(exported: Path, tmp_path: Path) -> Path:
    """The same with its record."""
    return shutil.copytree(exported, tmp_path / "adapter")


@pytest.fixture
def foreign(good: Path) -> Path:
    """The same without it, as anybody's adapter is."""
    (good / "ftlab.json").unlink()
    return good
