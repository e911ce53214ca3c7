"""Masked language modelling on plain text."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ftlab.batch import IGNORE, Batch
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Examples, Key, Prediction, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, batched, text_of, with_text
from ftlab.tasks.collate import pad
from ftlab.tasks.masked_lm_head import MaskedOutputs, Scored, scored
from ftlab.tasks.masking import MaskingTask, Pool, padded_labels, pool_of, tokens_of
from ftlab.tasks.segments_frame import frame_of

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Document: TypeAlias = tuple[int, list[int], list[int]]
"""(number of the row, ids, 1 where a word starts or nothing)"""


_SAMPLE = ("one two three four", "a word", "lists are mutable sequences that hold items", "many old birds sing", "the sixth row")


@dataclass(frozen=True, kw_only=True)
class MaskedLM(MaskingTask):
    """Prediction of masked tokens; reports their accuracy and the pseudo-perplexity exp(mean masked loss).

    The masks are another draw in each epoch, and always the same ones in evaluation. Salazar et al. 2020 mask one token at a time;
    here the other masked tokens of the row are hidden as well, so the figure is usually above theirs, and it depends on the shares.

    Args:
        text_column: The column that holds the text.
        block_size: Tokens per block, special tokens included; null takes the most that the model and `data.max_length` allow.
        cross_documents: Whether a block may hold the end of one row and the start of the next, with a separator between them.
        too_long: What to do with a row longer than a block where blocks do not cross; split it into blocks, name it, or cut it.
        empty: What to do with a row in which nothing can be masked; error names it, skip leaves it out and counts it.
    """

    heads = ("mlm",)
    auto_class = "AutoModelForMaskedLM"
    paper = "Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
    sample = Sample(rows=[{"text": text} for text in _SAMPLE], arguments={"cross_documents": False})
    free = MaskingTask.free | {"text_column", "too_long"}

    text_column: str = "text"
    block_size: int | None = None
    cross_documents: bool = True
    too_long: Literal["split", "error", "truncate"] = "split"
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size is not None and self.block_size < 1:
            raise ConfigError(f"model.task.block_size is {self.block_size}; it must be at least 1.")
        if self.cross_documents and self.too_long != "split":
            raise ConfigError(
                f"model.task.too_long is {self.too_long}, but blocks that cross rows split them all; set cross_documents to false."
            )

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return (self.text_column,)

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        pool, frame = pool_of(tokenizer), frame_of(tokenizer, 1)
        room = self._size(max_length) - frame.size
        if room < 1:
            raise ConfigError(f"a block of {self._size(max_length)} tokens has no room beside {frame.size} special ones; make it longer.")
        documents = self._documents(rows, tokenizer, pool)
        blocks = _across(documents, room, frame.special[1].tolist()) if self.cross_documents else self._within(documents, room)
        blank = 0
        for number, ids, starts in blocks:
            if pool.special[ids].all():
                blank += 1
                continue
            example: Example = {"input_ids": frame.ids(np.array(ids)).tolist(), "row": number}
            yield example if self.unit == "token" else {**example, "starts": frame.starts(np.array(starts)).tolist()}
        if blank:
            log.warning("%d blocks hold only special and unknown tokens and were left out: there is nothing to mask in them", blank)

    def _size(self, max_length: int) -> int:
        size = self.block_size or max_length
        if size > max_length:
            raise ConfigError(f"model.task.block_size is {size}, above the {max_length} the model and data.max_length allow; lower it.")
        return size

    def _documents(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, pool: Pool) -> Iterator[Document]:
        skipped = 0
        for chunk in batched(with_text(rows, self.text_column, self.empty)):
            texts = [text_of(row, self.text_column, number) for number, row in chunk]
            for (number, _), (ids, starts) in zip(chunk, tokens_of(texts, tokenizer, self.unit != "token"), strict=True):
                if not pool.special[ids].all():
                    yield number, ids, starts
                elif self.empty == "error":
                    raise DataError(
                        f"row {number}, column '{self.text_column}' has only special and unknown tokens, so there is nothing to mask; "
                        "remove the row or set model.task.empty to skip."
                    )
                else:
                    skipped += 1
        if skipped:
            log.warning("%d rows with nothing to mask were skipped (model.task.empty: skip)", skipped)

    def _within(self, documents: Iterable[Document], room: int) -> Iterator[Document]:
        cut = 0
        for number, ids, starts in documents:
            if len(ids) > room and self.too_long == "error":
                raise DataError(
                    f"row {number} has {len(ids)} tokens, more than the {room} that a block has room for; "
                    "set model.task.too_long to split or truncate, or shorten the row."
                )
            cut += len(ids) > room
            for start in range(0, len(ids) if self.too_long == "split" else 1, room):
                yield number, ids[start : start + room], starts[start : start + room]
        if cut and self.too_long == "truncate":
            log.warning("%d rows were cut to %d tokens (model.task.too_long: truncate)", cut, room)

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        example = examples[index]
        ids, starts = example["input_ids"].astype(np.int64), example.get("starts")
        words = None if starts is None else starts.astype(np.int64)
        masked, labels = self.masked(ids, words, pool_of(tokenizer), np.random.default_rng(key))
        return {"input_ids": masked, "row": example["row"], "mlm": labels}

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=pad(examples, tokenizer), labels={"mlm": padded_labels(examples, "mlm")}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        total, count, hits = mlm_sum(scored(model, batch))
        return MaskedOutputs(sums={"mlm": total}, counts={"mlm": count}, hits=hits)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import BinaryAccuracy

        return MetricCollection({"accuracy": BinaryAccuracy()})

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        if isinstance(outputs, MaskedOutputs) and outputs.hits is not None and len(outputs.hits):
            metrics.update(outputs.hits, torch.ones_like(outputs.hits))

    def derived(self, losses: Mapping[str, float]) -> dict[str, float]:
        return {"pseudo_perplexity": math.exp(min(losses["mlm"], 700.0))}

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return mlm_records(scored(model, batch), batch)


def mlm_sum(found: Scored) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum of the loss, number of scored positions, and in evaluation which tokens were found."""
    if torch.is_grad_enabled():
        total, hits = found.total(), None
    else:
        losses, hits = found.judged()
        total = losses.sum()
    return total, total.new_full((), len(found.labels)), hits


def mlm_records(found: Scored, batch: Batch) -> list[Prediction]:
    """Masked tokens, their mean loss and their accuracy for each row."""
    losses, hits = found.judged()
    counts = (batch.labels["mlm"] != IGNORE).sum(1).tolist()
    parts = zip(counts, losses.split(counts), hits.split(counts), strict=True)
    return [
        {"masked": n, "loss": float(loss.sum()) / n if n else None, "accuracy": int(hit.sum()) / n if n else None} for n, loss, hit in parts
    ]


def _across(documents: Iterable[Document], room: int, separator: list[int]) -> Iterator[Document]:
    """Blocks of `room` tokens that go on from one row to the next, with a separator between rows (Liu et al. 2019, FULL-SENTENCES)."""
    ids: list[int] = []
    starts: list[int] = []
    owner: list[int] = []
    for number, more, words in documents:
        gap = separator if ids else []
        ids += gap + more
        starts += [1] * len(gap) + words
        owner += [number] * (len(gap) + len(more))
        cut = len(ids) - len(ids) % room
        for start in range(0, cut, room):
            yield owner[start], ids[start : start + room], starts[start : start + room]
        del ids[:cut], starts[:cut], owner[:cut]
    if ids:
        yield owner[0], ids, starts
