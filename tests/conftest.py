"""What every test shares: a cache of its own, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftlab import registry
from tests.faults.forking import PATIENCE, Run, served
from tests.faults.processes import Forker, forker

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are cached below pytest's own folder."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("FTLAB_RUN_FOLDER", raising=False)


@pytest.fixture(autouse=True)
def own_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that one test gives is not there in the next."""
    monkeypatch.setattr(registry, "_given", dict(registry._given))


@pytest.fixture(scope="session")
def _warm() -> Iterator[Run]:
    # Not peft and models too: they import classes of optimisers, beside which a short name such as AdamW is ambiguous.
    with served("ftlab.main", "ftlab.cli") as run:
        yield run


@pytest.fixture(scope="session")
def fork() -> Iterator[Forker]:
    """Starts `ftlab` in processes that may die; see tests/faults/processes.py."""
    with forker() as started:
        yield started


@pytest.fixture
def ftlab(tmp_path: Path, _warm: Run) -> Command:
    """`ftlab` in a process and a folder of its own; what every command imports was imported before. Gives what it printed and its code."""

    def command(*arguments: str, env: dict[str, str] | None = None, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        result = _warm(cwd, *arguments, env={**os.environ, **(env or {})})
        return subprocess.CompletedProcess(arguments, result.code, result.out, result.err)

    return command


@pytest.fixture
def fresh(tmp_path: Path) -> Command:
    """The same in a new interpreter, which ends as a user's does and may start ranks."""

    def command(*arguments: str, env: dict[str, str] | None = None, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "ftlab", *arguments]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)

    return command


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data, `$FTLAB_DATA` or `../shared/data`; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FTLAB_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set FTLAB_DATA")
    return folder
