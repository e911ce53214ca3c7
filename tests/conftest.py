"""What every test shares: a cache of its own, and the command line in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlab import registry

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


@pytest.fixture
def ftlab(tmp_path: Path) -> Command:
    """`ftlab` in a fresh process, in a folder of its own; returns what it printed and its exit code."""

    def command(
        *arguments: str, env: dict[str, str] | None = None, cwd: Path = tmp_path, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "ftlab", *arguments]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    return command


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data, `$FTLAB_DATA` or `../shared/data`; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FTLAB_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set FTLAB_DATA")
    return folder
