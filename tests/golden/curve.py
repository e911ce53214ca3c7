"""The recorded loss curve: ten optimiser steps of LoRA on fixed text.

`python -m tests.golden.curve` records it anew, which a refactor never needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parent / "curve.yaml"
RECORDED = Path(__file__).parent / "curve.json"


def measure(folder: Path) -> dict[str, list[float]]:
    """Training loss and learning rate of each step, and the validation losses."""
    words = [sys.executable, "-m", "ftlab", "fit", "--config", str(CONFIG), "--run.root", str(folder), "--run.id", "one"]
    subprocess.run(words, check=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    records = [json.loads(line) for line in (folder / "curve" / "one" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {name: [r[name] for r in records if name in r] for name in ("train_loss", "lr", "val_loss")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(measure(Path(folder)), indent=1) + "\n", encoding="utf-8")
