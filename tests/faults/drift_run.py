"""A run of two steps that goes on with something else than it began with, and what is said to that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ftlab import checkpoint_io
from ftlab.backbone import ASSETS

if TYPE_CHECKING:
    from tests.faults.conftest import Run

LABELS = ["bad", "good", "so-so"]
FIT = ("fit", "--config", "cls.yaml")
RESUME = ("fit", "--resume", "runs/x/y")
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}


def lines(texts: list[str], labels: list[str]) -> str:
    return "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(texts, labels, strict=True))


def rows(number: int) -> str:
    return lines([f"Returns the number {n} of things" for n in range(number)], [LABELS[n % 3] for n in range(number)])


def write(folder: Path) -> None:
    """A configuration of two epochs of three batches that stops after two of them; no path in it is absolute."""
    shutil.copytree(ASSETS / "tiny-llama", folder / "base")
    (folder / "rows.jsonl").write_text(rows(6))
    config = {
        "model": {
            "backbone": {"name": "base"},
            "task": {"class_path": "SequenceClassification"},
            "tuning": {"class_path": "LoRA", "init_args": {"r": 2, "target_modules": ["q_proj"]}},
            "optimizer": ADAMW,
        },
        "data": {"source": {"class_path": "JsonLines", "init_args": {"path": "rows.jsonl"}}, "val_split": None, "batch_size": 2},
        "trainer": {"max_steps": 2, "max_epochs": 2, "accelerator": "cpu"},
        "save": {"every_n_steps": 1},
        "run": {"name": "x", "id": "y"},
    }
    (folder / "cls.yaml").write_text(yaml.safe_dump(config))


def resumed(warm: Run, *more: str) -> str:
    """What a resume that must be refused says."""
    result = warm(*RESUME, "--trainer.max_steps", "4", *more)
    assert result.code == 4, result.err
    assert "Traceback" not in result.err
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("ftlab: error: ")
    return sentence.removeprefix("ftlab: error: ")


def accepted(warm: Run, *without: str, more: tuple[str, ...] = ()) -> str:
    """Resume with the checks `without` left out; what was said."""
    result = warm(*RESUME, "--trainer.max_steps", "4", *more, without=without)
    assert result.code == 0, result.err
    return result.err


def rewritten(run: Path, key: str, value: Any) -> None:
    """Change a key of the run's own configuration, as somebody with an editor would."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    *outer, last = key.split(".")
    inner = config
    for name in outer:
        inner = inner[name]
    inner[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def steps(run: Path) -> int:
    """The step of the newest checkpoint, to which `last.ckpt` points."""
    folder = run / "checkpoints"
    newest = checkpoint_io.Manifest.read(folder).newest_first()[0]
    assert (folder / "last.ckpt").resolve().name == newest
    return checkpoint_io.Manifest.read(folder).files[newest].step
