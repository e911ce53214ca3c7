"""A tag for every word: named entities in BIO or BILOU, or plain tags such as parts of speech."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Prediction, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task
from ftlab.tasks.collate import pad
from ftlab.tasks.labels import OneKind, collect, label_id
from ftlab.tasks.spans import letters, spelled
from ftlab.tasks.tags import OUTSIDE, chunks, complete, entities, entity_scores, is_tag, repaired, type_of
from ftlab.tasks.words import Pieces, listed, pieces_of, with_words

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_SAMPLE = [
    {"tokens": ["Ada", "met", "Bo", "Li", "."], "tags": ["B-person", "O", "B-person", "I-person", "O"]},
    {"tokens": ["hi"], "tags": ["O"]},
    {"tokens": ["in", "New", "York"], "tags": ["O", "B-place", "I-place"]},
    {"tokens": ["birds", "sing", "in", "Rome"], "tags": ["O", "O", "O", "B-place"]},
    {"tokens": [f"w{i}" for i in range(30)], "tags": [*["O"] * 28, "B-place", "I-place"]},
]
_BETWEEN = "\0"
"""What separates the words of an example in the token cache; no word holds it."""


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """Tag every word of a sentence, such as with named entities; precision, recall and F1 over entities are seqeval's.

    A word's tag is read from its first piece. Sentences that are too long are cut into windows; each word is scored once, in the window
    that shows most of what stands around it.

    Args:
        token_column: The column of the words, a list of text.
        tag_column: The column of their tags, a list as long.
        labels: The tags in the order of their ids; null takes them from the training rows, for BIO and BILOU every tag of each type.
        scheme: bio or bilou for tags that spell entities, none for tags of single words.
        pieces: Whether a word is scored by its first piece (first) or each of its pieces is scored with the word's tag (all).
        repair: Mend broken sequences of tags, such as an I-x that nothing begins, and count the rows; else they are errors.
        stride: Pieces that neighbouring windows of a long sentence share; null is a third of a window.
        empty: What to do with a row that has no word; error names it, skip leaves it out and counts it.
    """

    heads = ("tag",)
    auto_class = "AutoModelForTokenClassification"
    paper = "Devlin et al. (2019), BERT, section 5.3; tags: Ramshaw and Marcus (1995), Ratinov and Roth (2009)"
    merges = True
    scores = True
    sample = Sample(rows=_SAMPLE)
    free = Task.free | {"token_column", "tag_column", "repair"}

    token_column: str = "tokens"
    tag_column: str = "tags"
    labels: list[str] | None = None
    scheme: Literal["bio", "bilou", "none"] = "bio"
    pieces: Literal["first", "all"] = "first"
    repair: bool = False
    stride: int | None = None
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        names = self.labels
        if names is not None and (len(names) < 2 or len(set(names)) < len(names)):
            raise ConfigError(f"model.task.labels is {names}; name at least two tags, each once.")
        if names is not None and self.scheme != "none":
            odd = next((name for name in names if not is_tag(name, self.scheme)), None)
            if odd is not None or OUTSIDE not in names:
                what = f"has '{odd}'" if odd is not None else f"lacks {OUTSIDE}"
                raise ConfigError(f"model.task.labels {what}, but with scheme {self.scheme} it is made of {self._allowed()}.")
        if self.repair and self.scheme == "none":
            raise ConfigError("model.task.repair is true while scheme is none; only bio and bilou have sequences to repair, leave it out.")
        if self.stride is not None and self.stride < 0:
            raise ConfigError(f"model.task.stride is {self.stride}; it must be at least 0.")

    def _allowed(self) -> str:
        return f"{OUTSIDE} and {', '.join(complete(['type'], self.scheme)[1:])}" if self.scheme != "none" else "names"

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return (self.token_column, self.tag_column) if labelled else (self.token_column,)

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        if self.labels is not None:
            return self
        tags = ((number, tag) for number, row in rows() for tag in listed(row, self.tag_column, number))
        if self.scheme == "none":
            return replace(self, labels=list(collect(tags)))
        types = set()
        for number, tag in tags:
            if not is_tag(tag, self.scheme):
                raise DataError(
                    f"row {number} has the tag {tag!r}, but with scheme {self.scheme} a tag is {self._allowed()}; mend it, "
                    "set model.task.scheme, or name the tags in model.task.labels where the rows hold their ids."
                )
            types.add(type_of(str(tag)))
        if not types - {""}:
            raise DataError(
                f"no training row has a tag other than {OUTSIDE}, so there is nothing to learn; check column '{self.tag_column}'."
            )
        return replace(self, labels=complete(types - {""}, self.scheme))

    def model_options(self) -> dict[str, object]:
        names = self.labels or []
        return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        mended, kinds = 0, OneKind()
        for number, row, found in pieces_of(with_words(rows, self.token_column, self.empty), self.token_column, tokenizer):
            tags = None
            if labelled:
                given = self._names(row, number)
                for value in listed(row, self.tag_column, number):
                    kinds.check(value, number)
                self._refuse_unequal(len(found.words), len(given), number)
                tags = self._sound(given, number)
                mended += tags != given
            for example in self._windows(found, tags, max_length):
                yield {**example, "row": number}
        if mended:
            log.warning("%d rows had broken sequences of tags, which were repaired (model.task.repair)", mended)

    def _names(self, row: Row, number: int) -> list[str]:
        """The tags of a row as they stand there."""
        names = self.labels or []
        return [names[label_id(value, names, number)] for value in listed(row, self.tag_column, number)]

    def _sound(self, tags: list[str], number: int) -> list[str]:
        """The tags without broken sequences."""
        if self.scheme == "none":
            return tags
        sound = repaired(tags, self.scheme)
        if sound != tags and not self.repair:
            place = next(i for i, (tag, right) in enumerate(zip(tags, sound, strict=True)) if tag != right)
            raise DataError(
                f"row {number}, word {place} has the tag '{tags[place]}' where {self.scheme.upper()} would have '{sound[place]}'; "
                "mend the row, or set model.task.repair to true."
            )
        names = self.labels or []
        return [names[label_id(tag, names, number)] for tag in sound]

    def _refuse_unequal(self, words: int, tags: int, number: int) -> None:
        if words != tags:
            raise DataError(
                f"row {number} has {words} words in column '{self.token_column}' and {tags} tags in column '{self.tag_column}'; "
                "give one tag for each word."
            )

    def _windows(self, found: Pieces, tags: list[str] | None, max_length: int) -> Iterator[Example]:
        names = self.labels or []
        ids = None if tags is None else [names.index(tag) for tag in tags]
        for fields, owned in found.windows(max_length, self.stride):
            heads = [w if w >= 0 and first else -1 for w, first in owned]
            targets = heads if self.pieces == "first" else [w for w, _ in owned]
            yield {
                **fields,
                "tag": [IGNORE if ids is None or w < 0 else ids[w] for w in targets],
                "word": heads,
                "text": letters(_BETWEEN.join(found.words[w] for w in heads if w >= 0)),
            }

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        inputs = pad(examples, tokenizer)
        labels = np.full(inputs["input_ids"].shape, IGNORE, dtype=np.int64)
        for row, example in zip(labels, examples, strict=True):
            row[: len(example["tag"])] = example["tag"]
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        notes = tuple({"word": e["word"], "text": e["text"]} for e in examples)
        return Batch(inputs=inputs, labels={"tag": torch.from_numpy(labels)}, rows=rows, notes=notes)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits: Tensor = model(**batch.inputs).logits.float()
        labels = batch.labels["tag"]
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORE)
        return Outputs(sums={"tag": total}, counts={"tag": scored(labels).sum().float()}, logits=logits)

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        """Feed every scored piece to `model.metrics`; the task's own figures are those of `score`."""
        keep = scored(batch.labels["tag"])
        if outputs.logits is not None and bool(keep.any()):
            metrics.update(outputs.logits[keep], batch.labels["tag"][keep])

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._records(model(**batch.inputs).logits, batch)

    def records(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        assert outputs.logits is not None
        return self._records(outputs.logits, batch)

    def _records(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        """Words and their tags of each window."""
        best = logits.argmax(-1).cpu().numpy()
        return [self._record(row, note) for row, note in zip(best, batch.notes, strict=True)]

    def _record(self, best: NDArray[np.int64], note: Stored) -> Prediction:
        places = np.flatnonzero(note["word"].astype(np.int64) >= 0)
        names = self.labels or []
        words = spelled(note, "text").split(_BETWEEN) if len(places) else []
        return {"words": words, "tags": [names[i] for i in best[places]]}

    def merge(self, records: Sequence[Prediction]) -> Prediction:
        words, tags = ([item for record in records for item in _list(record[name])] for name in ("words", "tags"))
        if self.scheme == "none":
            return {"tags": tags}
        found = entities(tags, self.scheme)
        return {
            "tags": tags,
            "entities": [{"type": kind, "start": start, "end": end, "text": " ".join(words[start:end])} for kind, start, end in found],
        }

    def score(self, predictions: Sequence[tuple[int, Prediction]], rows: NumberedRows) -> dict[str, float]:
        predicted = {number: _list(prediction["tags"]) for number, prediction in predictions}
        read = ((self._sound(self._names(row, number), number), predicted[number]) for number, row in rows if number in predicted)
        # A sentence of several windows is not whole where only some batches are run.
        pairs = [(gold, tags) for gold, tags in read if len(gold) == len(tags)]
        right = sum(a == b for gold, tags in pairs for a, b in zip(gold, tags, strict=True))
        words = sum(len(gold) for gold, _ in pairs)
        figures = {"accuracy": right / words if words else math.nan}
        if (scheme := self.scheme) != "none":
            types = dict.fromkeys(type_of(name) for name in self.labels or [] if name != OUTSIDE)
            figures |= entity_scores(((chunks(gold), entities(tags, scheme)) for gold, tags in pairs), types)
        return figures if pairs else dict.fromkeys(figures, math.nan)


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value
