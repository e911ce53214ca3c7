"""Causal language modelling on plain text."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, places_of
from ftlab.errors import ConfigError, DataError
from ftlab.probe import probe_inputs, probing, same
from ftlab.rows import Example, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, batched, text_of, with_text
from ftlab.tasks.collate import pad
from ftlab.tasks.cross_entropy import cross_entropy_sum, token_losses
from ftlab.tasks.lm_head import LanguageHead, language_head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_SAMPLE = ("one two three", "words of all kinds", "birds sing", "many old dogs sleep", "it is late", "no")


@dataclass(frozen=True, kw_only=True)
class CausalLM(Task):
    """Next-token prediction on plain text, cut into blocks; reports perplexity.

    Blocks overlap by one token, so that every token but the first is predicted exactly once.

    Args:
        text_column: The column that holds the text.
        block_size: Tokens per block; null takes the longest that the model and `data.max_length` allow.
        cross_documents: Whether a block may hold the end of one row and the start of the next.
        add_eos: Whether each row ends with the end-of-sequence token.
        empty: What to do with a row that has no text; error names it, skip leaves it out and counts it.
    """

    heads = ("lm",)
    auto_class = "AutoModelForCausalLM"
    sample = Sample(rows=[{"text": text} for text in _SAMPLE], arguments={"block_size": 16})

    free = Task.free | {"text_column"}

    text_column: str = "text"
    block_size: int | None = None
    cross_documents: bool = True
    add_eos: bool = True
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        if self.block_size is not None and self.block_size < 2:
            raise ConfigError(f"model.task.block_size is {self.block_size}; it must be at least 2, one token to see and one to predict.")

    def check(self, model: nn.Module) -> None:
        inputs = probe_inputs(model, model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
        other = {**inputs, "input_ids": torch.cat([inputs["input_ids"][:, :-1], inputs["input_ids"][:, :1]], dim=1)}
        with probing(model):
            before, after = (model(**i, use_cache=False).logits[:, :-1] for i in (inputs, other))
        if not same(before, after):
            raise ConfigError(
                f"model.backbone.name is {model.config.name_or_path}, a {model.config.model_type} model that sees later tokens; "  # type: ignore[union-attr]
                f"{type(self).__name__} needs a decoder, so name one or choose a task for encoders."
            )

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return (self.text_column,)

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        size = self.block_size or max_length
        if size > max_length:
            raise ConfigError(f"model.task.block_size is {size}, above the {max_length} the model and data.max_length allow; lower it.")
        documents = self._documents(rows, tokenizer)
        blocks = _blocks_across(documents, size) if self.cross_documents else _blocks_within(documents, size)
        for number, ids in blocks:
            yield {"input_ids": ids, "row": number}

    def _documents(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, list[int]]]:
        added = tokenizer.num_special_tokens_to_add(pair=False)
        skipped = 0
        for chunk in batched(with_text(rows, self.text_column, self.empty)):
            texts = [text_of(row, self.text_column, number) for number, row in chunk]
            encoded = tokenizer(texts, verbose=False, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
            for (number, _), ids in zip(chunk, encoded, strict=True):
                if len(ids) > added:
                    yield number, self._ended(ids, tokenizer)
                elif self.empty == "error":
                    raise DataError(
                        f"row {number}, column '{self.text_column}' has text of which the tokenizer makes no token; "
                        "remove the row or set model.task.empty to skip."
                    )
                else:
                    skipped += 1
        if skipped:
            log.warning("%d rows whose text has no token were skipped (model.task.empty: skip)", skipped)

    def _ended(self, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The ids of a document with one begin-of-sequence token where the tokenizer sets one, and one end-of-sequence token."""
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]  # the text spells the token that the tokenizer adds
        if eos is not None and ids[-2:] == [eos, eos]:
            ids = ids[:-1]
        return [*ids, eos] if self.add_eos and eos is not None and ids[-1] != eos else ids

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        inputs = pad(examples, tokenizer)
        labels = inputs["input_ids"].numpy().copy()
        if "attention_mask" in inputs:
            labels[inputs["attention_mask"].numpy() == 0] = IGNORE
        labels[:, 0] = IGNORE  # nothing comes before it; labels are counted as they are scored
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=inputs, labels={"lm": torch.from_numpy(labels)}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        hidden, labels, head = _scored(model, batch)
        if head is None:
            total = F.cross_entropy(hidden.float(), labels, reduction="sum")
        else:
            total = cross_entropy_sum(hidden, labels, head.project, head.linear, head.vocabulary)
        count = total.new_full((), len(labels))
        return Outputs(sums={"lm": total}, counts={"lm": count})

    def derived(self, losses: Mapping[str, float]) -> dict[str, float]:
        return {"perplexity": math.exp(min(losses["lm"], 700.0))}

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, object]]:
        hidden, labels, head = _scored(model, batch)
        if head is None:
            flat = F.cross_entropy(hidden.float(), labels, reduction="none")
        else:
            flat = token_losses(hidden, labels, head.project, head.vocabulary)
        counts = (batch.labels["lm"] != IGNORE).sum(1).tolist()
        sums = [float(part.sum()) for part in flat.split(counts)]
        return [
            {"tokens": n, "loss": total / n if n else None, "perplexity": math.exp(min(total / n, 700.0)) if n else None}
            for total, n in zip(sums, counts, strict=True)
        ]


def _scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, LanguageHead | None]:
    """Hidden states (n, D) and labels (n,) of the scored positions, or logits (n, V) where the model has no plain head."""
    head = language_head(model)
    body = model if head is None else head.body
    outputs = body(**batch.inputs, use_cache=False)
    states = outputs.logits if head is None else outputs.last_hidden_state
    count, labels = batch.counts()["lm"], batch.labels["lm"]
    if count == labels[:, 1:].numel():
        return states[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), head
    places = places_of(F.pad(labels[:, 1:] != IGNORE, (0, 1)).flatten(), count)
    return states.flatten(0, 1).index_select(0, places), labels.flatten().index_select(0, places + 1), head


def _blocks_across(documents: Iterable[tuple[int, list[int]]], size: int) -> Iterator[tuple[int, list[int]]]:
    ids: list[int] = []
    owner: list[int] = []
    for number, document in documents:
        ids += document
        owner += [number] * len(document)
        start = 0
        while len(ids) - start >= size:
            yield owner[start], ids[start : start + size]
            start += size - 1
        del ids[:start], owner[:start]
    if len(ids) >= 2:
        yield owner[0], ids


def _blocks_within(documents: Iterable[tuple[int, list[int]]], size: int) -> Iterator[tuple[int, list[int]]]:
    single = 0
    for number, ids in documents:
        single += len(ids) == 1
        for start in range(0, len(ids) - 1, size - 1):
            yield number, ids[start : start + size]
    if single:
        log.warning("%d rows of a single token were skipped: there is nothing to predict in them", single)
