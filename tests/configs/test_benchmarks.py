"""The benchmark of the engine alone still fits the engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "study_engine.py"


@pytest.mark.slow
def test_a_small_one_runs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "40"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 trials on SQLite: " in done.stdout
