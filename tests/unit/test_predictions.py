from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ftlab.backbone import Backbone
from ftlab.callbacks.predictions import PredictionWriter
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import StorageError
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from tests.faults.processes import Forker, codes
from tests.unit.training import model_folder, texts, tiny_module, trainer

CLASSES = SequenceClassification(labels=["down", "up"])


def predict(root: Path, task: Task, rows: list[str], family: str, file: str = "jsonl", size: int = 4) -> Path:
    writer = PredictionWriter(root, file)  # type: ignore[arg-type]
    data = FinetuneData(Rows(items={"new": [{"text": t} for t in rows]}), predict_split="new", val_split=None, eval_batch_size=size)
    torch.manual_seed(0)  # for a fresh head
    trainer(root, [writer]).predict(tiny_module(root, task, family), datamodule=data, return_predictions=False)
    assert writer.records == []
    return writer.path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_has_a_line_in_the_order_of_the_source(tmp_path: Path) -> None:
    found = lines(predict(tmp_path, CLASSES, texts(23), "bert"))
    assert [r["row"] for r in found] == list(range(23))
    assert {str(r["label"]) for r in found} <= {"down", "up"}


def test_parquet_holds_what_json_lines_hold(tmp_path: Path) -> None:
    expected = lines(predict(tmp_path, CLASSES, texts(9), "bert"))
    table = pq.read_table(predict(tmp_path, CLASSES, texts(9), "bert", "parquet")).to_pylist()
    assert [r["row"] for r in table] == [r["row"] for r in expected]
    for ours, theirs in zip(table, expected, strict=True):
        assert ours["label"] == theirs["label"]
        assert ours["scores"] == pytest.approx(theirs["scores"])
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".pred")]


@pytest.mark.parametrize("size", [1, 3])
def test_the_blocks_of_a_row_come_in_their_order(tmp_path: Path, size: int) -> None:
    rows = ["abc" * 9, "x", "defg" * 9]
    found = lines(predict(tmp_path, CausalLM(block_size=8, cross_documents=False), rows, "llama", size=size))
    # <s> … </s> with a block for every 7 predicted tokens; the last one of a row is the short one.
    expected = [(i, n) for i, t in enumerate(rows) for n in [7] * ((len(t) + 1) // 7) + [(len(t) + 1) % 7] * ((len(t) + 1) % 7 > 0)]
    assert [(r["row"], r["tokens"]) for r in found] == expected


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    for file in ("jsonl", "parquet"):
        writer = PredictionWriter(tmp_path / "missing", file)
        runner = trainer(tmp_path)
        with pytest.raises(StorageError, match=rf"predictions\.{file} cannot be written"):
            writer.on_predict_end(runner, tiny_module(tmp_path, CLASSES, "bert"))


def saved_classifier(root: Path) -> Path:
    """A classifier whose head is in the file, so that all runs score with the same one."""
    folder = root / "classifier"
    backbone = Backbone(name=str(model_folder(root, "bert")))
    torch.manual_seed(0)
    model, _ = backbone.load_model(CLASSES.auto_class, CLASSES.model_options(), {})
    model.save_pretrained(folder)
    backbone.load_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "count"), [pytest.param("jsonl", 11, marks=pytest.mark.slow, id="more"), pytest.param("parquet", 1, id="fewer")]
)
def test_two_ranks_write_every_row_once(fork: Forker, tmp_path: Path, file: str, count: int) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts(count)))
    folder = saved_classifier(tmp_path)
    words = [
        "predict", "--model.backbone.name", str(folder), "--model.task", "SequenceClassification", "--model.task.labels", "[down, up]",
        "--model.tuning", "Full", "--data.source", "JsonLines", "--data.source.path", "{new: rows.jsonl}", "--data.predict_split", "new",
        "--data.batch_size", "2", "--run.name", "r", "--run.id", "i", "--run.predictions", file,
    ]  # fmt: skip
    ranks = fork.ranks(tmp_path, words)
    assert codes(ranks) == [0, 0], ranks[0].text
    path = tmp_path / "runs" / "r" / "i" / f"predictions.{file}"
    found = lines(path) if file == "jsonl" else pq.read_table(path).to_pylist()
    assert [r["row"] for r in found] == list(range(count))

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, record in zip(texts(count), found, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0)
        assert list(record["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
