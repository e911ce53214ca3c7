"""Classification and regression of one text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, batched, has_text, text_of, with_text
from ftlab.tasks.classification_metrics import Kind, classification_metrics
from ftlab.tasks.collate import pad
from ftlab.tasks.labels import OneKind, collect, flag_of, label_id, number_of, value_of
from ftlab.tasks.lengths import Tally
from ftlab.tasks.sequence_classification_options import balanced_weights, check_thresholds, check_weights, ordinal_log_probabilities

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

_SAMPLE = [
    {"text": "the film is slow", "label": "south"},
    {"text": "a", "label": "north"},
    {"text": "what a fine day it was", "label": "west"},
    {"text": "birds sing", "label": "north"},
    {"text": "nobody came at all", "label": "south"},
]


@dataclass(frozen=True, kw_only=True)
class SequenceClassification(Task):
    """Label a text or a pair of texts: one label, one of an order, several, or numbers.

    Ordered labels are learnt as a chain of yes and no, each output telling whether a row that is above all lower labels is above
    this one as well. The loss is −log p(label), and p(above) never grows with the label, for which no weights have to be shared.

    Args:
        text_column: The column of the text.
        pair_column: The column of the second text of a pair.
        label_column: The column of the label, a name or an id; a list of columns gives one 0/1 (or number) each.
        labels: The names of the labels in the order of their ids; null takes them from the training rows.
        kind: single for one label a row, ordinal for one of labels that have an order, the lowest first, multi for any number of
            labels, regression for numbers.
        class_weights: For kind single, what the loss of a row is multiplied by, one number for each label; balanced takes
            rows / (labels × rows of the label) from the training rows, whose mean over them is 1. The mean is over rows, not weights.
        label_smoothing: For kind single, the share of a label that is spread over all labels.
        thresholds: For kind multi, the probability above which a row has a label; one for all, or one for each.
        too_long: What to do with a text longer than the model allows; error names the row, truncate cuts and counts.
        empty: What to do with a row that has no text; error names it, skip leaves it out and counts it.
    """

    heads = ("label",)
    auto_class = "AutoModelForSequenceClassification"
    paper = (
        "Shi, Cao and Raschka (2023), Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities "
        "(kind ordinal)"
    )
    sample = Sample(rows=_SAMPLE, arguments={"labels": ["north", "south", "west"]})
    free = Task.free | {"text_column", "pair_column", "label_column", "thresholds", "too_long"}

    text_column: str = "text"
    pair_column: str | None = None
    label_column: str | list[str] = "label"
    labels: list[str] | None = None
    kind: Kind = "single"
    class_weights: Literal["balanced"] | list[float] | None = None
    label_smoothing: float = 0.0
    thresholds: float | list[float] = 0.5
    too_long: Literal["error", "truncate"] = "error"
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        columns = self._label_columns()
        if self._chooses and isinstance(self.label_column, list):
            raise ConfigError(f"model.task.label_column is a list while kind is {self.kind}; set kind to multi or regression, or name one.")
        if not columns or len(set(columns)) < len(columns):
            raise ConfigError(f"model.task.label_column is {columns}; name each label column once.")
        if self.kind == "multi" and isinstance(self.label_column, list) and len(columns) < 2:
            raise ConfigError(f"model.task.label_column is {columns} while kind is multi; name at least two, or set kind to single.")
        self._check_labels(columns)
        check_weights(self.class_weights, self.label_smoothing, self.kind, self.labels)
        named = self.labels or (columns if isinstance(self.label_column, list) else None)
        check_thresholds(self.thresholds, self.kind, named)

    @property
    def _chooses(self) -> bool:
        """Whether a row has exactly one label."""
        return self.kind in ("single", "ordinal")

    def _check_labels(self, columns: list[str]) -> None:
        if self.labels is None:
            return
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"model.task.labels is {self.labels}; name each label once.")
        one_each = isinstance(self.label_column, list) or self.kind == "regression"
        if one_each and len(self.labels) != len(columns):
            raise ConfigError(f"model.task.labels has {len(self.labels)} names for {len(columns)} label columns; give one for each.")
        if not one_each and len(self.labels) < 2:
            raise ConfigError(f"model.task.labels is {self.labels}; name at least two labels, or set kind to regression.")

    def columns(self, labelled: bool) -> tuple[str, ...]:
        texts = (self.text_column,) if self.pair_column is None else (self.text_column, self.pair_column)
        return (*texts, *self._label_columns()) if labelled else texts

    def _label_columns(self) -> list[str]:
        return self.label_column if isinstance(self.label_column, list) else [self.label_column]

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        named = self._named(rows)
        if named.class_weights != "balanced":
            return named
        column, labels = self._label_columns()[0], named.labels or []
        kept = ((n, row) for n, row in rows() if has_text(row, self.columns(labelled=False), n))  # a row that is skipped has no weight
        ids = [label_id(value_of(row, column, n), labels, n) for n, row in kept]
        return replace(named, class_weights=balanced_weights(ids, labels))

    def _named(self, rows: Callable[[], NumberedRows]) -> Self:
        """This task with the labels of the training rows."""
        if self.labels is not None:
            return self
        if isinstance(self.label_column, list) or self.kind == "regression":
            return replace(self, labels=self._label_columns())
        column = self.label_column
        values = ((n, value_of(row, column, n)) for n, row in rows())
        if self.kind == "multi":
            values = ((n, v) for n, many in values for v in _several(many, column, n))
        names = list(collect(values, gaps=self.kind != "ordinal"))
        if self.kind == "ordinal" and not all(name.isdecimal() for name in names):
            raise DataError(
                f"the training rows have the labels {names}, whose order nobody can tell; write model.task.labels, lowest first."
            )
        return replace(self, labels=names)

    def model_options(self) -> dict[str, object]:
        names = self.labels or []
        if self.kind == "ordinal":
            names = [f"above {name}" for name in names[:-1]]
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": _PROBLEMS[self.kind],
        }

    def fails(self, model: nn.Module) -> Mapping[str, str]:
        weighted = any(weight != 1 for weight in self.class_weights or ())
        plain = self.kind != "ordinal" and not weighted and not self.label_smoothing
        return {} if plain else {"hf_loss": "the models of transformers know no order, weights or smoothing of labels"}

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        added = tokenizer.num_special_tokens_to_add(pair=self.pair_column is not None)
        tally, kinds = Tally(self.empty, self.too_long, max_length), OneKind()
        for number, row, fields in self._encoded(rows, tokenizer):
            length = len(fields["input_ids"])
            if length <= added:
                tally.refuse_blank(number, self.text_column)
                continue
            if length > max_length:
                tally.refuse_long(number, length)
                fields = {name: ids[0] for name, ids in self._tokens([(number, row)], tokenizer, max_length).items()}
            label = self._label(row, number) if labelled else self._no_label()
            if labelled and self.kind != "regression" and not isinstance(self.label_column, list):
                value = row[self.label_column]
                for each in value if isinstance(value, list) else [value]:
                    kinds.check(each, number)
            yield {**fields, "row": number, "label": label}
        tally.report()

    def _encoded(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, Row, dict[str, list[int]]]]:
        """(number, row, uncut token fields) of every row that has text."""
        rows = with_text(rows, self.text_column, self.empty)
        if self.pair_column is not None:
            rows = with_text(rows, self.pair_column, self.empty)
        for chunk in batched(rows):
            encoded = self._tokens(chunk, tokenizer, None)
            for i, (number, row) in enumerate(chunk):
                yield number, row, {name: ids[i] for name, ids in encoded.items()}

    def _tokens(self, chunk: list[tuple[int, Row]], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, list[list[int]]]:
        """`input_ids` of some rows, and `token_type_ids` where the tokenizer makes them; cut to `limit` tokens."""
        texts = [text_of(row, self.text_column, n) for n, row in chunk]
        pairs = None if self.pair_column is None else [text_of(row, self.pair_column, n) for n, row in chunk]
        encoded = tokenizer(texts, pairs, truncation=limit is not None, max_length=limit, return_attention_mask=False, verbose=False)
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def _label(self, row: Row, number: int) -> int | list[float]:
        names = self.labels or []
        values = [value_of(row, column, number) for column in self._label_columns()]
        if self._chooses:
            return label_id(values[0], names, number)
        if isinstance(self.label_column, list) or self.kind == "regression":
            read = number_of if self.kind == "regression" else flag_of
            return [read(v, c, number) for v, c in zip(values, self._label_columns(), strict=True)]
        chosen = {label_id(v, names, number) for v in _several(values[0], self._label_columns()[0], number)}
        return [float(i in chosen) for i in range(len(names))]

    def _no_label(self) -> int | list[float]:
        return IGNORE if self._chooses else [math.nan] * len(self.labels or [])

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        stored = np.stack([e["label"] for e in examples])  # a new array: torch warns of the store's, which cannot be written
        labels = torch.from_numpy(stored).squeeze(1).long() if self._chooses else torch.from_numpy(stored).float()
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=pad(examples, tokenizer), labels={"label": labels}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits: Tensor = model(**batch.inputs).logits.float()
        labels = batch.labels["label"]
        keep = scored(labels)
        if self.kind == "single":
            weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
            total = F.cross_entropy(logits, labels, weights, reduction="sum", ignore_index=IGNORE, label_smoothing=self.label_smoothing)
        elif self.kind == "ordinal":
            total = F.nll_loss(ordinal_log_probabilities(logits), labels, reduction="sum", ignore_index=IGNORE)
        elif self.kind == "multi":
            total = F.binary_cross_entropy_with_logits(logits[keep], labels[keep], reduction="sum")
        else:
            total = F.mse_loss(logits[keep], labels[keep], reduction="sum")
        return Outputs(sums={"label": total}, counts={"label": keep.sum().float()}, logits=logits)

    def metrics(self) -> MetricCollection:
        return classification_metrics(self.kind, self.labels or [], self.thresholds)

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        labels = batch.labels["label"]
        keep = scored(labels) if labels.ndim == 1 else scored(labels).all(1)
        if outputs.logits is None or not bool(keep.any()):
            return
        logits, labels = outputs.logits[keep], labels[keep]
        if self.kind == "regression":
            wide = logits.dtype if logits.device.type == "mps" else torch.float64
            metrics.update(logits.squeeze(-1).to(wide), labels.squeeze(-1).to(wide))
        else:
            metrics.update(self._scores(logits), labels.long())

    def _scores(self, logits: Tensor) -> Tensor:
        """(B, labels): what metrics look at. Several labels are moved so that each one's threshold is at a half, in the same order."""
        if self.kind == "multi":
            thresholds = torch.as_tensor(self.thresholds, dtype=logits.dtype, device=logits.device)
            return (logits - thresholds.logit()).sigmoid()
        return ordinal_log_probabilities(logits).exp() if self.kind == "ordinal" else logits

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, object]]:
        logits: Tensor = model(**batch.inputs).logits.float()
        names = self.labels or []
        if self.kind == "regression":
            return [{"scores": dict(zip(names, row, strict=True))} for row in logits.tolist()]
        if self.kind == "multi":
            limits = self.thresholds if isinstance(self.thresholds, list) else [self.thresholds] * len(names)
            return [
                {"labels": [n for n, p, t in zip(names, row, limits, strict=True) if p > t], "scores": dict(zip(names, row, strict=True))}
                for row in logits.sigmoid().tolist()
            ]
        scores = logits.softmax(-1) if self.kind == "single" else self._scores(logits)
        return [
            {"label": names[max(range(len(row)), key=row.__getitem__)], "scores": dict(zip(names, row, strict=True))}
            for row in scores.tolist()
        ]


_PROBLEMS = {
    "single": "single_label_classification",
    "ordinal": "multi_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
"""What transformers calls them; to it, ordered labels are several yes and no."""


def _several(value: object, column: str, number: int) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"row {number}, column '{column}' holds {value!r:.60}; kind multi takes a list of labels or label columns.")
    return value
