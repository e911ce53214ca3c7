"""Next-sentence prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch
from ftlab.rows import Example, Examples, Key, Prediction, Stored
from ftlab.tasks.base import NumberedRows, Outputs
from ftlab.tasks.collate import pad
from ftlab.tasks.segments import IS_NEXT, SegmentTask
from ftlab.tasks.segments_frame import frame_of

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class NextSentencePrediction(SegmentTask):
    """Tell whether one segment of text goes on from another, as BERT does; label 0 is that it does.

    A document of one sentence is left out and counted.
    """

    heads = ("nsp",)
    auto_class = "AutoModelForNextSentencePrediction"
    paper = "Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
    keeps_single = False

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        return self.spans(rows, tokenizer, max_length, words=False)

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        first, second, label = self.pair(examples, index, np.random.default_rng(key))
        assert second is not None  # encode keeps no document of one sentence
        frame = frame_of(tokenizer, 2)
        drawn = {"input_ids": frame.ids(first[0], second[0]), "row": examples[index]["row"], "nsp": np.array([label])}
        types = frame.type_ids(first[0], second[0])
        return drawn if types is None else {**drawn, "token_type_ids": types}

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=pad(examples, tokenizer), labels={"nsp": nsp_labels(examples)}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits: Tensor = model(**batch.inputs).logits.float()
        total, count = nsp_sum(logits, batch.labels["nsp"])
        return Outputs(sums={"nsp": total}, counts={"nsp": count}, logits=logits)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        return MetricCollection({"accuracy": MulticlassAccuracy(2, average="micro")})

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        assert outputs.logits is not None
        keep = batch.labels["nsp"] != IGNORE
        if bool(keep.any()):
            metrics.update(outputs.logits[keep], batch.labels["nsp"][keep])

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return nsp_records(model(**batch.inputs).logits.float(), batch.labels["nsp"])


def nsp_labels(examples: Sequence[Stored]) -> Tensor:
    """(B,) labels of the pairs."""
    return torch.tensor([int(e["nsp"][0]) for e in examples])


def nsp_sum(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the loss over the pairs that are scored, and their number."""
    total = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=IGNORE)
    return total, (labels != IGNORE).sum().float()


def nsp_records(logits: Tensor, labels: Tensor) -> list[Prediction]:
    """For each pair, how likely the second segment goes on from the first, and whether it does; nothing for a segment alone."""
    likely = logits.float().softmax(-1)[:, IS_NEXT].tolist()
    return [
        {"next": None if label == IGNORE else p > 0.5, "score": None if label == IGNORE else p, "truth": _truth(label)}
        for p, label in zip(likely, labels.tolist(), strict=True)
    ]


def _truth(label: int) -> bool | None:
    return None if label == IGNORE else label == IS_NEXT
