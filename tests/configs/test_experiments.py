"""Every YAML that is shipped runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Command

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments").rglob("study.yaml"))
FILES = sorted({*(ROOT / "experiments").rglob("*.yaml")} - {*STUDIES})
SLOW = {"head", "tiny_bert", "tiny_llama"}
"""What takes more than ten seconds to make ready for its one step."""
ONE_STEP = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--run.root", "runs"]


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in FILES])
def test_one_step(path: Path, ftlab: Command, tmp_path: Path) -> None:
    named = re.findall(r"\.\./shared/[\w./-]+", path.read_text(encoding="utf-8"))
    absent = [name for name in named if not (ROOT / name).exists()]
    if absent:
        pytest.skip(f"no real data in {absent[0]}")
    done = ftlab("fit", "--config", str(path), *ONE_STEP, "--run.root", str(tmp_path / "runs"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob(f"runs/{path.stem}/*/summary.json"))) == 1


@pytest.mark.parametrize("path", STUDIES, ids=[p.parent.name for p in STUDIES])
def test_dry_run(path: Path, ftlab: Command) -> None:
    done = ftlab("ablate", "--config", str(path), "--dry-run", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"study {path.parent.name}: " in done.stdout
