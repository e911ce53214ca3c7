"""Tasks that each have one fault, as it has shipped somewhere or might."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from transformers import PreTrainedTokenizerBase

from ftlab.batch import IGNORE, Batch, scored
from ftlab.rows import Example, Key, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs
from tests.planted.meant import meant_for
from tests.planted.sound_task import SoundTask


@meant_for("contract")
class WrongForward(SoundTask):
    """A forward pass that wants more than it is given."""

    def forward(self, model: nn.Module, batch: Batch, training: bool) -> Outputs:  # type: ignore[override]
        return super().forward(model, batch)


@meant_for("documented")
class UndocumentedTask(SoundTask):
    """A field without a line of help."""

    smoothing: float = 0.0


@meant_for("yaml")
class SortsItsLabels(SoundTask):
    """A field that is changed while it is read, and again when it is read again.

    Args:
        shift: Of the ids.
    """

    shift: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", self.shift + 1)


@meant_for("declares")
class ScoresNothing(SoundTask):
    """Says that it scores predictions, and makes none."""

    scores = True


@meant_for("binds_once")
class AsksAgain(SoundTask):
    """Looks for the labels in the training rows, also where it has them."""

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        return super(AsksAgain, replace(self, labels=None)).bind(rows)


@meant_for("encodes")
class NumbersExamples(SoundTask):
    """Counts examples from 1 instead of telling their rows."""

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        for count, example in enumerate(super().encode(rows, tokenizer, max_length, labelled), 1):
            yield {**example, "row": count}


@meant_for("encode_pure")
class CropsInEncode(SoundTask):
    """Draws a crop where its result is cached for all epochs."""

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        for example in super().encode(rows, tokenizer, max_length, labelled):
            ids: Any = example["input_ids"]
            yield {**example, "input_ids": [*ids[:3], *ids[3 + (random.random() < 0.5) :]]}


@meant_for("encode_pure")
class OrderOfASet(SoundTask):
    """Gives ids in the order of a set, which is another one in every process."""

    def label_of(self, row: Row, number: int) -> int:
        super().label_of(row, number)
        return list({*(self.labels or []), *(f"spare {i}" for i in range(50))}).index(str(row["label"])) % 3


@meant_for("columns_named")
class KeyErrors(SoundTask):
    """Reads a column that may be missing, without a word."""

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        return super().encode(((n, {**row, "text": row["text"]}) for n, row in rows), tokenizer, max_length, labelled)


@meant_for("bad_values")
class ValueErrors(SoundTask):
    """Looks a label up in a list, without a word."""

    def label_of(self, row: Row, number: int) -> int:
        if row.get("label") == "no such value":
            raise ValueError("'no such value' is not in list")
        return super().label_of(row, number)


@meant_for("unlabelled")
class AlwaysWantsLabels(SoundTask):
    """Needs labels to predict."""

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        return super().encode(rows, tokenizer, max_length, True)


@meant_for("same_inputs")
class LeaksTheLabel(SoundTask):
    """Writes the label into the text."""

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        for example in super().encode(rows, tokenizer, max_length, labelled):
            ids, label = example["input_ids"], example["label"]
            assert isinstance(ids, list)
            assert isinstance(label, int)
            yield {**example, "input_ids": [*ids[:-1], 100 + label, ids[-1]] if labelled else ids}


@meant_for("draws")
class GlobalMasks(SoundTask):
    """Draws from the global generator."""

    def random(self, key: Key) -> np.random.Generator:
        return np.random.default_rng(np.random.randint(10**6))


@meant_for("draws")
class StaticMasks(SoundTask):
    """Hides the same letter in every epoch."""

    def random(self, key: Key) -> np.random.Generator:
        return np.random.default_rng(key[2])


@meant_for("special_tokens")
class HidesTheEnd(SoundTask):
    """Hides the token that ends a text like any letter."""

    def hidden(self, example: Stored, random: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Stored:
        ids = np.array(example["input_ids"])
        ids[random.integers(1, len(ids))] = tokenizer.mask_token_id
        return {**example, "input_ids": ids}


@meant_for("ranks")
class RowsOfTheBatch(SoundTask):
    """Numbers rows by their places in the batch."""

    def numbers(self, examples: Sequence[Stored]) -> Tensor:
        return torch.arange(len(examples))


@meant_for("counts")
class CountsTokens(SoundTask):
    """Counts tokens where labels are scored."""

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor(float(batch.inputs["input_ids"].numel()))


@meant_for("labels_apart")
class LabelsInside(SoundTask):
    """Hands the labels to the model."""

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(**batch.inputs, labels=batch.labels["label"].clamp(min=0)).logits
        return found


@meant_for("padding")
class AttendsToPadding(SoundTask):
    """Leaves out the attention mask."""

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(input_ids=batch.inputs["input_ids"]).logits
        return found


@meant_for("neighbours")
class SoftmaxOverRows(SoundTask):
    """Normalises over the wrong axis."""

    def over(self) -> int:
        return 0


@meant_for("split_batches")
class MeanForSum(SoundTask):
    """Gives the mean where the sum is asked for."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().total(logits, labels) / scored(labels).sum().clamp(min=1)


@meant_for("unscored")
class MeanOfNothing(SoundTask):
    """Multiplies the mean by the number again, which over nothing is NaN."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE) * scored(labels).sum()


@meant_for("hf_loss")
class LossInBits(SoundTask):
    """Reports the loss in another unit than everybody."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().total(logits, labels) / math.log(2)


@meant_for("precision")
class AddsUpInShort(SoundTask):
    """Adds up in the type of the logits."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE).float()


@meant_for("heads")
class GoesRoundTheHead(SoundTask):
    """Cuts the classification head off from the gradient."""

    def logits(self, model: Any, batch: Batch) -> Tensor:
        head = model.classifier
        found: Tensor = F.linear(model.bert(**batch.inputs).pooler_output, head.weight.detach(), head.bias.detach())
        return found


@meant_for("learns")
class ClimbsTheLoss(SoundTask):
    """Has a gradient of the wrong sign."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = super().total(logits, labels)
        return 2 * total.detach() - total


@meant_for("predictions")
class TakesTheRowsKey(SoundTask):
    """Uses the key under which the row's number is written."""

    def record(self, scores: list[float]) -> dict[str, object]:
        return {"row": max(scores)}


@meant_for("metrics")
class MeanOfMeans(SoundTask):
    """Averages the accuracies of batches."""

    def metric(self) -> Metric:
        return MeanMetric()

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        keep = scored(batch.labels["label"])
        if outputs.logits is not None and bool(keep.any()):
            metrics.update((outputs.logits.argmax(1) == batch.labels["label"])[keep].float().mean())
