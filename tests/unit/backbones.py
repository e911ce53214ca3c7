"""What the tests of the backbone share: a tiny model under a task and a strategy, batches for it, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.module import FinetuneModule
from ftlab.strategies.base import TuningStrategy
from ftlab.tasks.base import Task
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.testing.models import DECODERS, ENCODERS, tiny_model_folder

LANGUAGE = CausalLM()
CLASSES = SequenceClassification(labels=["north", "south", "west"])
CASES: list[tuple[str, Task]] = [*((f, LANGUAGE) for f in DECODERS), *((f, CLASSES) for f in (*DECODERS, *ENCODERS))]
NAMES = [f"{family}-{type(task).__name__}" for family, task in CASES]
TEXTS = ("one two three", "a", "words of several kinds")


class Models:
    """Folders of tiny models, each written once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, family: str) -> Path:
        path = self.root / family
        return path if path.is_dir() else tiny_model_folder(family, path)


def configured(backbone: Backbone, task: Task, tuning: TuningStrategy) -> FinetuneModule:
    module = FinetuneModule(backbone, task, tuning)
    module.configure_model()
    return module


def adapted(models: Models, family: str, task: Task, tuning: TuningStrategy, **settings: Any) -> FinetuneModule:
    """A family's tiny model under a task and a strategy, always with the same weights."""
    torch.manual_seed(0)
    return configured(Backbone(name=str(models.folder(family)), **settings), task, tuning)


def stirred(module: FinetuneModule) -> FinetuneModule:
    """What trains begins as the identity; random values make it count."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return module


def batch_of(module: FinetuneModule, texts: Sequence[str] = TEXTS, padding: int = 0) -> Batch:
    """The texts as one batch, with `padding` more columns on the right than they need."""
    encoded = [{**module.tokenizer(text), "row": [i], "label": [i % 3]} for i, text in enumerate(texts)]
    batch = module.task.collate(encoded, module.tokenizer)
    return batch if padding == 0 else widened(batch, padding, int(module.tokenizer.pad_token_id))


def widened(batch: Batch, padding: int, filler: int) -> Batch:
    fillers = {"input_ids": filler, "attention_mask": 0, "token_type_ids": 0}
    complete = {"attention_mask": torch.ones_like(batch.inputs["input_ids"]), **batch.inputs}
    inputs = {name: nn.functional.pad(t, (0, padding), value=fillers[name]) for name, t in complete.items()}
    labels = {h: nn.functional.pad(t, (0, padding), value=-100) if t.ndim == 2 else t for h, t in batch.labels.items()}
    return replace(batch, inputs=inputs, labels=labels)


def gradients(module: FinetuneModule, batch: Batch, seed: int = 0) -> dict[str, Tensor | None]:
    """Name → gradient of the summed losses, for every parameter."""
    torch.manual_seed(seed)
    module.adapted.zero_grad()
    torch.stack(list(module.task.forward(module.adapted, batch).sums.values())).sum().backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.adapted.named_parameters()}


def row_results(module: FinetuneModule, batch: Batch) -> list[list[float]]:
    """One list of numbers per row: its mean loss, or its class scores."""
    module.adapted.eval()
    records = module.task.predict(module.adapted, batch)
    return [list(r["scores"].values()) if "scores" in r else [r["loss"]] for r in records]  # type: ignore[attr-defined,list-item]
