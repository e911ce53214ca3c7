"""`model.metrics` through the command line: what is refused, and what the run's configuration holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.faults.conftest import GOOD, Run

F1 = "torchmetrics.classification.MulticlassF1Score"
CLASSES = {
    **GOOD,
    "model": {**GOOD["model"], "backbone": {"name": "ftlab/tiny-bert"}, "task": {"class_path": "SequenceClassification"}},
    "data": {
        "source": {"class_path": "Rows", "init_args": {"items": [{"text": f"number {n}", "label": n % 2} for n in range(8)]}},
        "val_split": 0.5,
    },
}


@pytest.fixture
def config(folder: Path) -> str:
    (folder / "classes.yaml").write_text(yaml.safe_dump(CLASSES))
    return "classes.yaml"


@pytest.mark.parametrize(
    ("named", "code", "said"),
    [
        ("os.system", 7, "model.metrics names os.system, which a configuration may not name"),
        ("torch.optim.AdamW", 2, "model.metrics names torch.optim.AdamW; metrics are classes of torchmetrics, so name one of those."),
    ],
)
def test_other_classes_are_refused_before_anything_is_imported(cold: Run, config: str, named: str, code: int, said: str) -> None:
    result = cold("fit", "--config", config, "--model.metrics", f"[{{class_path: {named}}}]")
    assert result.code == code
    assert result.sentence.startswith(said)
    assert not result.torch


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (f"[{{class_path: {F1}}}]", "model.metrics.num_classes must be set; write it in the YAML or as an option."),
        (f"[{{class_path: {F1}s}}]", f"model.metrics is {F1}s, which does not exist; did you mean MulticlassF1Score"),
        (f"[{{class_path: {F1}, init_args: {{num_clases: 2}}}}]", "model.metrics.num_clases is not an argument of MulticlassF1Score; did"),
        (f"[{{class_path: {F1}, init_args: {{num_classes: 1}}}}]", "model.metrics[0] refuses its arguments: Expected argument"),
        ("3", "model.metrics is 3; write class_path, and init_args below it."),
    ],
)
def test_what_cannot_be_made(warm: Run, config: str, written: str, said: str) -> None:
    result = warm("fit", "--config", config, "--model.metrics", written)
    assert result.code == 2
    assert result.sentence.startswith(said)


def test_a_task_that_feeds_none(warm: Run) -> None:
    result = warm("fit", "--config", "good.yaml", "--model.metrics", f"[{{class_path: {F1}, init_args: {{num_classes: 2}}}}]")
    assert (result.code, result.sentence) == (
        2, "model.metrics is set, but CausalLM gives nothing that one metric could look at; leave it out.",
    )  # fmt: skip


def test_they_are_logged_and_kept(warm: Run, config: str, folder: Path) -> None:
    metric = {"class_path": F1, "init_args": {"num_classes": 2, "average": "micro"}}
    result = warm("fit", "--config", config, "--model.metrics", json.dumps([metric]), "--run.name", "a", "--run.id", "b")
    assert result.code == 0, result.err
    (kept,) = yaml.safe_load((folder / "runs/a/b/config.yaml").read_text())["model"]["metrics"]
    assert kept["class_path"] == F1
    assert metric["init_args"].items() <= kept["init_args"].items()  # type: ignore[attr-defined]
    figures = json.loads((folder / "runs/a/b/metrics.jsonl").read_text().splitlines()[-1])
    assert figures["val_multiclass_f1_score"] == pytest.approx(figures["val_accuracy"])
