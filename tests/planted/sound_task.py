"""A small task without a fault: labels of texts in which every epoch hides another letter. The broken ones each change one thing in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from transformers import PreTrainedTokenizerBase

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import DataError
from ftlab.rows import Example, Examples, Key, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, text_of, with_text
from ftlab.tasks.collate import pad

TEXTS = ("one two three", "a bird", "words of all kinds", "birds sing", "many old dogs sleep", "it is late", "no")
ROWS: tuple[Row, ...] = tuple({"text": text, "label": f"label {i % 3}"} for i, text in enumerate(TEXTS))


@dataclass(frozen=True, kw_only=True)
class SoundTask(Task):
    """Label a text.

    Args:
        labels: The names of the labels; null takes them from the training rows.
        empty: What to do with a row that has no text; error names it, skip leaves it out and counts it.
    """

    heads = ("label",)
    auto_class = "AutoModelForSequenceClassification"
    sample = Sample(rows=ROWS)

    labels: list[str] | None = None

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return ("text", "label") if labelled else ("text",)

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        return self if self.labels else replace(self, labels=sorted({text_of(row, "label", n) for n, row in rows()}))

    def model_options(self) -> dict[str, object]:
        return {"num_labels": len(self.labels or []), "problem_type": "single_label_classification"}

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        for number, row in with_text(rows, "text", self.empty):
            ids = tokenizer(text_of(row, "text", number))["input_ids"]
            if len(ids) > max_length:
                raise DataError(f"row {number} has {len(ids)} tokens, more than {max_length}; shorten it.")
            yield {"input_ids": ids, "row": number, "label": self.label_of(row, number) if labelled else IGNORE}

    def label_of(self, row: Row, number: int) -> int:
        name = text_of(row, "label", number)
        if name not in (self.labels or []):
            raise DataError(f"row {number} has the label {name!r}, which is not among {self.labels}; mend it.")
        return (self.labels or []).index(name)

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        return self.hidden(examples[index], self.random(key), tokenizer)

    def random(self, key: Key) -> np.random.Generator:
        return np.random.default_rng(key)

    def hidden(self, example: Stored, random: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Stored:
        ids = np.array(example["input_ids"])
        ids[random.integers(1, len(ids) - 1)] = tokenizer.mask_token_id
        return {**example, "input_ids": ids}

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        labels = torch.tensor([int(e["label"][0]) for e in examples])
        return Batch(inputs=pad(examples, tokenizer), labels={"label": labels}, rows=self.numbers(examples))

    def numbers(self, examples: Sequence[Stored]) -> Tensor:
        return torch.tensor([int(e["row"][0]) for e in examples])

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits, labels = self.logits(model, batch), batch.labels["label"]
        return Outputs(sums={"label": self.total(logits, labels)}, counts={"label": self.count(batch)}, logits=logits)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(**batch.inputs).logits
        return found

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=IGNORE)

    def count(self, batch: Batch) -> Tensor:
        return scored(batch.labels["label"]).sum().float()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": self.metric()})

    def metric(self) -> Metric:
        return MulticlassAccuracy(len(self.labels or []), average="micro", ignore_index=IGNORE)

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        if outputs.logits is not None and bool(scored(batch.labels["label"]).any()):
            metrics.update(outputs.logits.float(), batch.labels["label"])

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, object]]:
        return [self.record(row) for row in self.logits(model, batch).float().softmax(self.over()).tolist()]

    def over(self) -> int:
        return 1

    def record(self, scores: list[float]) -> dict[str, object]:
        return {"scores": scores}
