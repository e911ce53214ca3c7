"""What of a task may differ between a run and the commands that open its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import Command

ROWS = [{"text": f"number {n}", "label": ["odd"] if n % 2 else ["even", "any"]} for n in range(8)]
CONFIG = {
    "seed_everything": 1,
    "model": {
        "backbone": {"name": "ftlab/tiny-bert"},
        "task": {"class_path": "SequenceClassification", "init_args": {"kind": "multi", "labels": ["any", "even", "odd"]}},
        "tuning": {"class_path": "LoRA", "init_args": {"r": 2}},
    },
    "data": {"source": {"class_path": "Rows", "init_args": {"items": ROWS}}, "val_split": 0.25, "test_split": 0.5},
    "trainer": {"max_steps": 1, "logger": False},
    "run": {"root": "runs", "name": "multi", "id": "one"},
}


@pytest.fixture
def opened(ftlab: Command, tmp_path: Path) -> list[str]:
    """What names a run's configuration and checkpoint."""
    (tmp_path / "multi.yaml").write_text(yaml.safe_dump(CONFIG))
    assert ftlab("fit", "--config", "multi.yaml").returncode == 0
    run = tmp_path / "runs" / "multi" / "one"
    return ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]


def test_thresholds_are_chosen_after_training(ftlab: Command, tmp_path: Path, opened: list[str]) -> None:
    scores = []
    for limit in (0.01, 0.99):
        words = ["--model.task.thresholds", str(limit), "--run.id", f"at-{limit}"]
        done = ftlab("test", *opened, *words)
        assert done.returncode == 0, done.stderr
        scores.append(json.loads((tmp_path / "runs" / "multi" / f"at-{limit}" / "metrics.jsonl").read_text().splitlines()[-1]))
    assert scores[0]["test_loss"] == scores[1]["test_loss"]
    assert scores[0] != scores[1]


def test_rows_may_have_other_columns(ftlab: Command, opened: list[str]) -> None:
    rows = json.dumps([{"sentence": row["text"]} for row in ROWS])
    done = ftlab("predict", *opened, "--run.id", "other", "--model.task.text_column", "sentence", "--data.source.items", rows)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "words", "key"),
    [
        ("test", ["--model.task.labels", "[odd, even, any]"], "model.task.labels"),
        ("fit", ["--model.task.thresholds", "0.3"], "model.task.thresholds"),
    ],
)
def test_everything_else_must_be_the_runs(ftlab: Command, opened: list[str], command: str, words: list[str], key: str) -> None:
    done = ftlab(command, *opened, *words, "--run.id", "other")
    assert done.returncode == 4
    assert f"the checkpoint has {key} " in done.stderr
