"""Tasks that draw at random ask the same questions in every validation: of one run, and of any other command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command

TEXTS = [
    "The list is a sequence of items.\nSome functions return none.\nA string has a length.",
    "Sets hold no item twice.\nA dictionary maps keys to values.\nNumbers are not changed.",
    "Files are closed at the end.\nA loop ends with its last item.\nErrors are raised and caught.",
]


@pytest.mark.parametrize("task", ["MaskedLM", "NextSentencePrediction", "BertPretraining"])
def test_weights_that_stay_keep_their_figures(task: str, ftlab: Command, tmp_path: Path) -> None:
    items = {split: [{"text": text} for text in TEXTS] for split in ("train", "val")}
    config = {
        "seed_everything": 1,
        "model": {
            "backbone": {"name": "ftlab/tiny-bert"}, "task": task, "tuning": "Full",
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-30}},
        },
        "data": {"source": {"class_path": "Rows", "init_args": {"items": items}}, "batch_size": 2},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"}, "run": {"name": "still", "id": "first"},
    }  # fmt: skip
    (tmp_path / "still.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert ftlab("fit", "--config", "still.yaml").returncode == 0
    again = ftlab("validate", "--config", "still.yaml", "--run.id", "again", "--ckpt_path", "runs/still/first/checkpoints/last.ckpt")
    assert again.returncode == 0
    found = losses(tmp_path / "runs/still/first")
    summary = json.loads((tmp_path / "runs/still/first/summary.json").read_text(encoding="utf-8"))
    assert len(found) == 3
    assert {*found, *losses(tmp_path / "runs/still/again")} == {found[0]}
    assert summary["base_val_loss"] == pytest.approx(found[0], rel=1e-6)  # it has not been rounded to float32, as what is logged


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [record["val_loss"] for record in records if "val_loss" in record]
