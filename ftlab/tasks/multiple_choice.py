"""Choosing one of several answers to a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Prediction, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, batched, has_text, text_of, with_text
from ftlab.tasks.collate import pad
from ftlab.tasks.labels import OneKind, value_of
from ftlab.tasks.lengths import Tally

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

_FIELDS = ("input_ids", "token_type_ids")
_SAMPLE: list[Row] = [
    {"question": "two and two", "choices": ["four", "five", "a dog"], "label": 0},
    {"question": "the sky is", "choices": ["loud", "blue", "old"], "label": 1},
    {"question": "cats", "choices": ["bark", "sing", "purr when they like it"], "label": 2},
    {"question": "a week has how many days", "choices": ["six", "seven", "ten"], "label": 1},
]


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """Choose the right one of several texts, each read together with the question.

    A choice is read as a pair: the question and the choice, or, where there is a context, the context and the question with the
    choice behind it. All rows have the same number of choices.

    Args:
        question_column: The column of the question, or of the beginning that the choices continue.
        context_column: The column of a text that the question is about; null where there is none.
        choices_column: The column of the list of choices.
        label_column: The column of the right choice, its place counted from 0 or its text.
        choices: Number of choices; null takes that of the first training row.
        too_long: What to do with a choice that is too long with its question; error names the row, truncate cuts and counts.
        empty: What to do with a row that lacks a text; error names it, skip leaves it out and counts it.
    """

    heads = ("choice",)
    auto_class = "AutoModelForMultipleChoice"
    paper = "Zellers et al. (2018), SWAG: A Large-Scale Adversarial Dataset for Grounded Commonsense Inference"
    sample = Sample(rows=_SAMPLE, arguments={"choices": 3})
    free = Task.free | {"question_column", "choices_column", "label_column", "too_long"}

    question_column: str = "question"
    context_column: str | None = None
    choices_column: str = "choices"
    label_column: str = "label"
    choices: int | None = None
    too_long: Literal["error", "truncate"] = "error"
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if self.choices is not None and self.choices < 2:
            raise ConfigError(f"model.task.choices is {self.choices}; there must be at least 2 to choose from.")

    def columns(self, labelled: bool) -> tuple[str, ...]:
        texts = (*self._texts, self.choices_column)
        return (*texts, self.label_column) if labelled else texts

    @property
    def _texts(self) -> tuple[str, ...]:
        return (self.question_column, *([self.context_column] if self.context_column is not None else []))

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        if self.choices is not None:
            return self
        for number, row in rows():
            if has_text(row, self._texts, number):  # one that is skipped does not count
                found = len(self._list(row, number))
                if found < 2:
                    raise DataError(f"row {number}, column '{self.choices_column}' has {found} choice(s); there must be at least 2.")
                return replace(self, choices=found)
        return self

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        tally, kinds = Tally(self.empty, self.too_long, max_length), OneKind()
        for column in self._texts:
            rows = with_text(rows, column, self.empty)
        for chunk in batched(rows):
            parts = [self._tokens(row, number, tokenizer, tally) for number, row in chunk]
            for (number, row), encoded in zip(chunk, parts, strict=True):
                lengths = [len(ids) for ids in encoded["input_ids"]]
                flat = {name: list(chain.from_iterable(ids)) for name, ids in encoded.items()}
                label = IGNORE
                if labelled:
                    label = self._label(row, number)
                    kinds.check(row[self.label_column], number)
                yield {**flat, "lengths": lengths, "label": label, "row": number}
        tally.report()

    def _tokens(self, row: Row, number: int, tokenizer: PreTrainedTokenizerBase, tally: Tally) -> dict[str, list[list[int]]]:
        """`input_ids` of every choice of a row, and `token_type_ids` where the tokenizer makes them."""
        firsts, seconds = self._pairs(row, number)
        encoded = tokenizer(firsts, seconds, return_attention_mask=False, verbose=False)
        longest = max(len(ids) for ids in encoded["input_ids"])
        if longest > tally.limit:
            tally.refuse_long(number, longest)
            encoded = tokenizer(firsts, seconds, truncation=True, max_length=tally.limit, return_attention_mask=False)
        return {name: encoded[name] for name in _FIELDS if name in encoded}

    def _pairs(self, row: Row, number: int) -> tuple[list[str], list[str]]:
        choices, question = self._list(row, number), text_of(row, self.question_column, number)
        if len(choices) != self.choices:
            raise DataError(
                f"row {number}, column '{self.choices_column}' has {len(choices)} choices while others have {self.choices}; "
                "give every row as many, or leave it out (model.task.choices is that of the first row, unless it is set)."
            )
        if self.context_column is None:
            return [question] * len(choices), choices
        return [text_of(row, self.context_column, number)] * len(choices), [f"{question} {choice}" for choice in choices]

    def _list(self, row: Row, number: int) -> list[str]:
        value = value_of(row, self.choices_column, number)
        if not isinstance(value, list):
            raise DataError(f"row {number}, column '{self.choices_column}' holds {value!r:.60}; it must be a list of texts.")
        for choice in value:
            if not isinstance(choice, str) or not choice.strip():
                raise DataError(
                    f"row {number}, column '{self.choices_column}' has the choice {choice!r:.60}; each is a text, so mend the row."
                )
        return value

    def _label(self, row: Row, number: int) -> int:
        choices, value = self._list(row, number), value_of(row, self.label_column, number)
        if isinstance(value, str) and choices.count(value) > 1:
            raise DataError(f"row {number} has the choice '{value:.60}' twice; give the place of the right one instead of its text.")
        if isinstance(value, str) and value in choices:
            return choices.index(value)
        place = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdecimal()) else -1
        if isinstance(value, bool) or not 0 <= place < len(choices):
            raise DataError(
                f"row {number} has the label {value!r:.60}; it must be one of its choices, or a place from 0 to {len(choices) - 1}."
            )
        return place

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        flat: list[Stored] = []
        for example in examples:
            ends = np.cumsum(example["lengths"].astype(np.int64))[:-1]
            parts = {name: np.split(example[name], ends) for name in _FIELDS if name in example}
            flat += [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
        inputs = {name: t.view(len(examples), -1, t.shape[1]) for name, t in pad(flat, tokenizer).items()}
        labels, rows = (torch.tensor([int(e[name][0]) for e in examples]) for name in ("label", "row"))
        return Batch(inputs=inputs, labels={"choice": labels}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits: Tensor = model(**batch.inputs).logits.float()
        labels = batch.labels["choice"]
        total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)
        return Outputs(sums={"choice": total}, counts={"choice": scored(labels).sum().float()}, logits=logits)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        return MetricCollection({"accuracy": MulticlassAccuracy(self.choices or 2, average="micro", validate_args=False)})

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        labels = batch.labels["choice"]
        keep = scored(labels)
        if outputs.logits is not None and bool(keep.any()):
            metrics.update(outputs.logits[keep], labels[keep])

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        logits: Tensor = model(**batch.inputs).logits.float()
        return [{"choice": max(range(len(row)), key=row.__getitem__), "scores": row} for row in logits.softmax(-1).tolist()]
