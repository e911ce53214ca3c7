"""What needs a CUDA device; skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Command

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
QUICKSTART = str(Path(__file__).parents[2] / "experiments" / "quickstart.yaml")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_quickstart_learns(fresh: Command, tmp_path: Path, precision: str) -> None:
    done = fresh("fit", "--config", QUICKSTART, "--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.precision", precision)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/quickstart/*/summary.json")
    summary = json.loads(file.read_text(encoding="utf-8"))
    assert summary["val_loss"] < summary["base_val_loss"]
    assert 0 < summary["peak_memory_bytes"] < 4 * 2**30
