"""What fresh processes do with a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything

from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.module import FinetuneModule
from ftlab.spec import built_from, spec_of
from ftlab.strategies.full import Full
from ftlab.tasks.base import Task
from ftlab.testing.conformance.check import require
from ftlab.testing.conformance.subject import adam
from ftlab.testing.conformance.tasks.subject import TaskSubject
from ftlab.testing.models import CONTEXT


def encode(subject: TaskSubject, material: dict[str, Any], folder: Path) -> None:
    """Encode the rows once more, with other hashes of text."""
    same = json.dumps(subject.encoded(subject.rows)) == material["examples"]
    require(same, "in another process the rows give other examples, as the order of a set does")


def run(subject: TaskSubject, material: dict[str, Any], folder: Path) -> None:
    """Fit and validate; then predict in a module that is made from what a checkpoint stores."""
    seed_everything(0, verbose=False)
    rows: list[Any] = list(subject.rows)
    module = _module(subject, subject.task)
    trainer = _trainer(folder)
    trainer.fit(module, datamodule=_data({"train": rows, "validation": rows}))
    loss = float(trainer.callback_metrics["val_loss"])
    require(bool(torch.tensor(loss).isfinite()), f"after a fit of two steps the validation loss is {loss}")
    labels = set(subject.task.columns(True)) - set(subject.task.columns(False))
    bare: list[Any] = [{k: v for k, v in row.items() if k not in labels} for row in rows]
    again = _module(subject, built_from(json.loads(json.dumps(spec_of(module.task))), "tasks"))
    found: Any = _trainer(folder).predict(again, datamodule=_data({"test": bare}))
    numbers = {record["row"] for batch in found for record in batch}
    require(bool(numbers) and numbers <= set(range(len(rows))), f"the predictions are of the rows {sorted(numbers)}")


def _module(subject: TaskSubject, task: Task) -> FinetuneModule:
    return FinetuneModule(subject.unbuilt().backbone, task, Full(), adam)


def _data(items: dict[str, list[Any]]) -> FinetuneData:
    split = "test" if "test" in items else None
    return FinetuneData(Rows(items=items), test_split=split, predict_split=split, batch_size=2, max_length=CONTEXT)


def _trainer(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
