"""A run that goes on from a checkpoint of another one, under an id of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.conftest import Command


def test_the_best_checkpoint_is_one_of_its_own(ftlab: Command, tmp_path: Path) -> None:
    """What it begins with is validated too, and here nothing after it is better."""
    rows = [{"text": "one two three four"}, {"text": "five six seven"}]
    config = {
        "model": {
            "backbone": {"name": "ftlab/tiny-llama"}, "task": "CausalLM", "tuning": "LoRA",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-30}},
        },
        "data": {"source": {"class_path": "Rows", "init_args": {"items": {"train": rows, "val": rows}}}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"}, "run": {"name": "first", "id": "a"},
    }  # fmt: skip
    (tmp_path / "first.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert ftlab("fit", "--config", "first.yaml").returncode == 0
    more = ["--trainer.max_epochs", "4", "--ckpt_path", "runs/first/a/checkpoints/last.ckpt"]
    done = ftlab("fit", "--config", "first.yaml", "--run.id", "b", *more)
    assert done.returncode == 0, done.stderr
    assert os.readlink(tmp_path / "runs/first/b/checkpoints/best.ckpt") == "step-00000003.ckpt"
    assert (tmp_path / "runs/first/b/export").is_dir()
