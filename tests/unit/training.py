"""What tests that train share: a quiet trainer on the CPU, and a module around a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.module import FinetuneModule
from ftlab.optim.schedule import Schedule
from ftlab.strategies.full import Full
from ftlab.tasks.base import Task
from ftlab.testing.models import tiny_model_folder

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "many", "birds", "sing", "in", "old", "trees"]


def texts(count: int) -> list[str]:
    """Sentences of 1 to 12 words, each another one."""
    return [" ".join([str(i), *(WORDS[(i * 7 + k) % len(WORDS)] for k in range(i * 5 % 12))]) for i in range(count)]


def trainer(folder: Path, callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    """A trainer that prints and writes nothing."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "use_distributed_sampler": False, "num_sanity_val_steps": 0, "max_epochs": 1,
    }  # fmt: skip
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**quiet, **settings})


def model_folder(root: Path, family: str = "llama") -> Path:
    """A tiny model, written once below `root`."""
    folder = root / family
    return folder if folder.is_dir() else tiny_model_folder(family, folder)


def tiny_module(root: Path, task: Task, family: str = "llama", rate: float = 1e-3) -> FinetuneModule:
    """A tiny model, all of it trained by plain gradient descent."""
    return FinetuneModule(
        Backbone(name=str(model_folder(root, family))), task, Full(),
        optimizer=lambda groups: SGD(groups, lr=rate), schedule=Schedule(decay="constant", warmup=0),
    )  # fmt: skip


class Seen(Callback):
    """Keeps the rows of every batch that was trained on, and stops where it is told to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[list[int]] = []
        self.stop_after = stop_after

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.rows.append(batch.rows.tolist())
