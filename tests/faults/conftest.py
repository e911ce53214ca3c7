"""The command line in processes of their own, forked from one that has paid for the imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab import registry
from tests.faults.drift_run import FIT, write
from tests.faults.forking import __file__ as server
from tests.faults.processes import Forker, Hook, forker
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


@dataclass(frozen=True)
class Result:
    """What a process left: exit code, both streams, and whether torch was imported."""

    code: int
    out: str
    err: str
    torch: bool

    @property
    def sentence(self) -> str:
        """The last line of stderr, without `ftlab: error: `; nothing on the way there may be a warning or a traceback."""
        lines = self.err.splitlines()
        assert 0 < len(lines) <= 8, self.err
        assert "Traceback" not in self.err, self.err
        assert "Warning" not in self.err, self.err
        assert lines[-1].startswith("ftlab: error: "), self.err
        return lines[-1].removeprefix("ftlab: error: ")


Run = Callable[..., Result]


@contextmanager
def _server(*modules: str) -> Iterator[Run]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, server, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(folder: Path, *arguments: str, env: dict[str, str] | None = None, without: Sequence[str] = ()) -> Result:
            assert process.stdin is not None
            assert process.stdout is not None
            surroundings = {"FTLAB_CACHE": str(folder / "cache"), **(env or {})}
            request = {"folder": str(folder), "arguments": arguments, "env": surroundings, "without": without}
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            return Result(answer["code"], answer["out"], answer["err"], answer.get("torch", False))

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def _cold() -> Iterator[Run]:
    with _server("ftlab.main") as run:
        yield run


@pytest.fixture(scope="session")
def _warm() -> Iterator[Run]:
    with _server("ftlab.main", "ftlab.cli") as run:
        yield run


@pytest.fixture(scope="session")
def fork() -> Iterator[Forker]:
    """Starts `ftlab` in processes that may die; see `processes.py`."""
    with forker() as started:
        yield started


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
