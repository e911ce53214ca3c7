"""Sentence vectors, learnt from pairs of texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import ConfigError, DataError
from ftlab.probe import first_sees_others
from ftlab.rows import Example, Prediction, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, batched, text_of, with_text
from ftlab.tasks.collate import pad
from ftlab.tasks.labels import number_of, value_of
from ftlab.tasks.lengths import Tally
from ftlab.tasks.pooling import Pooling, mask_of, text_vectors
from ftlab.tasks.retrieval import pearson, retrieval, spearman
from ftlab.tasks.sentence_embedding_export import write_modules
from ftlab.tasks.sentence_embedding_loss import contrastive_sum, text_keys

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

_SAMPLE: list[Row] = [
    {"sentence1": "a cat sleeps", "sentence2": "the cat is asleep", "score": 1.0},
    {"sentence1": "two dogs run", "sentence2": "rain", "score": 0.0},
    {"sentence1": "he reads", "sentence2": "a man reads a long book", "score": 0.75},
    {"sentence1": "one", "sentence2": "first", "score": 0.5},
    {"sentence1": "birds sing in old trees", "sentence2": "a song", "score": 0.25},
]
_OF_LOSS = {"temperature": "contrastive", "score_column": "cosine", "score_scale": "cosine"}
"""Field → the only loss that it means something to."""


@dataclass(frozen=True, kw_only=True)
class SentenceEmbedding(Task):
    """Learn vectors of texts whose likeness is that of the texts, from pairs with scores or from pairs that belong together.

    With `loss: contrastive` the second texts of a batch's other pairs, on all ranks, are an anchor's wrong answers. What a row
    costs then depends on its neighbours, and a loss can only be compared with one from batches of the same size; a batch of one
    pair has no wrong answer and a loss of 0. A pair that shares a text with the anchor's is left out of its wrong answers.

    Validation reports the correlations of cosine and score (`pearson`, `spearman`), or how well each first text finds its second
    among all second texts of the split: `recall_at_1`, `_5` and `_10`, `mrr` and `ndcg_at_10`.

    Args:
        first_column: The column of the first text; a query, where the two differ.
        second_column: The column of the second text; what a query should find.
        score_column: The column of the score, for loss cosine.
        score_scale: The highest score, for loss cosine; the lowest is 0.
        loss: cosine fits the cosine of two vectors to their score; contrastive tells a pair's second text from those of other pairs.
        temperature: What products of vectors are divided by, for loss contrastive.
        symmetric: Whether second texts also look for their first ones, for loss contrastive.
        pooling: How a text's vector comes from its hidden states; their mean, the first or the last.
        normalize: Whether vectors are brought to length 1, so that the product of two is their cosine.
        predicts: What predict writes of a pair; the similarity of its texts, or their vectors.
        too_long: What to do with a text longer than the model allows; error names the row, truncate cuts and counts.
        empty: What to do with a row that lacks a text; error names it, skip leaves it out and counts it.
    """

    heads = ("similarity",)
    auto_class = "AutoModel"
    paper = (
        "Reimers and Gurevych (2019), Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks; "
        "van den Oord, Li and Vinyals (2018), Representation Learning with Contrastive Predictive Coding, equation 4"
    )
    scores = True
    sample = Sample(rows=_SAMPLE)
    free = Task.free | {"first_column", "second_column", "score_column", "predicts", "too_long"}

    first_column: str = "sentence1"
    second_column: str = "sentence2"
    score_column: str = "score"
    score_scale: float = 1.0
    loss: Literal["cosine", "contrastive"] = "cosine"
    temperature: float = 0.05
    symmetric: bool = False
    pooling: Pooling = "mean"
    normalize: bool = True
    predicts: Literal["similarity", "vectors"] = "similarity"
    too_long: Literal["error", "truncate"] = "error"
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        for key, value in (("score_scale", self.score_scale), ("temperature", self.temperature)):
            if not 0 < value < math.inf:
                raise ConfigError(f"model.task.{key} is {value}; it must be a finite number above 0.")
        if self.loss == "cosine" and self.symmetric:
            raise ConfigError(
                "model.task.symmetric is true while loss is cosine, which is so already; set loss to contrastive or leave it out."
            )
        for field in fields(self):
            value, loss = getattr(self, field.name), _OF_LOSS.get(field.name, self.loss)
            if loss != self.loss and value != field.default:
                raise ConfigError(f"model.task.{field.name} is {value} while loss is {self.loss}; it is for loss {loss}, so leave it out.")

    def fails(self, model: nn.Module) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if getattr(model, "pooler", None) is not None:
            vector = "a mean" if self.pooling == "mean" else "a token's vector"
            found["heads"] = f"{vector} needs no pooler, so one that a model has gets a gradient of zeros"
        if self.loss == "contrastive":
            found["split_batches"] = "the other pairs of a batch are an anchor's wrong answers"
        return found

    def check(self, model: nn.Module) -> None:
        if model.config.is_encoder_decoder:  # type: ignore[union-attr]  # an HF model
            raise ConfigError(
                f"{type(model).__name__} is an encoder with a decoder; SentenceEmbedding needs one of them, so choose another."
            )
        if self.pooling == "cls" and not first_sees_others(model):
            raise ConfigError(
                f"model.task.pooling is cls, but the first token of a {type(model).__name__} sees no other; set it to mean or last."
            )

    def columns(self, labelled: bool) -> tuple[str, ...]:
        texts = (self.first_column, self.second_column)
        return (*texts, self.score_column) if labelled and self.loss == "cosine" else texts

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        tally = Tally(self.empty, self.too_long, max_length)
        whole = with_text(with_text(rows, self.first_column, self.empty), self.second_column, self.empty)
        for chunk in batched(whole):
            firsts, seconds = (self._tokens(chunk, column, tokenizer, tally) for column in (self.first_column, self.second_column))
            for (number, row), first, second in zip(chunk, firsts, seconds, strict=True):
                if first and second:
                    # Both texts in one list: the length by which rows are grouped is then what the pair costs.
                    label = self._label(row, number, labelled)
                    yield {"input_ids": [*first, *second], "split": len(first), "label": label, "row": number}
        tally.report()

    def _tokens(self, chunk: list[tuple[int, Row]], column: str, tokenizer: PreTrainedTokenizerBase, tally: Tally) -> Iterator[list[int]]:
        """The ids of a column's texts, none where a text has no token of its own."""
        texts = [text_of(row, column, number) for number, row in chunk]
        added = tokenizer.num_special_tokens_to_add(pair=False)
        encoded = tokenizer(texts, verbose=False, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
        for (number, _), text, ids in zip(chunk, texts, encoded, strict=True):
            if len(ids) <= added:
                tally.refuse_blank(number, column)
                yield []
            elif len(ids) > tally.limit:
                tally.refuse_long(number, len(ids))
                yield tokenizer(text, truncation=True, max_length=tally.limit)["input_ids"]
            else:
                yield ids

    def _label(self, row: Row, number: int, labelled: bool) -> float | int:
        if self.loss == "contrastive":
            return 0 if labelled else IGNORE
        if not labelled:
            return math.nan
        score = number_of(value_of(row, self.score_column, number), self.score_column, number)
        if not 0 <= score <= self.score_scale:
            raise DataError(
                f"row {number}, column '{self.score_column}' holds {score:g}; scores are from 0 to {self.score_scale:g}, "
                "so mend the row or set model.task.score_scale."
            )
        return score / self.score_scale

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        halves = [np.split(e["input_ids"], e["split"].astype(np.int64)) for e in examples]
        inputs = pad([{"input_ids": halves[i][k]} for k in (0, 1) for i in range(len(halves))], tokenizer)
        kind = torch.float32 if self.loss == "cosine" else torch.long
        labels = torch.tensor([e["label"].item() for e in examples], dtype=kind)
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=inputs, labels={"similarity": labels}, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        vectors, labels = self._vectors(model, batch), batch.labels["similarity"]
        keep = scored(labels)
        if self.loss == "cosine":
            total = F.mse_loss(_cosines(vectors[keep]), labels[keep], reduction="sum")
        else:
            keys = text_keys(batch.inputs["input_ids"], mask_of(batch.inputs)).view(2, -1).T
            total = contrastive_sum(vectors[keep], keys[keep], self.temperature, self.symmetric)
        return Outputs(sums={"similarity": total}, counts={"similarity": keep.sum().float()}, logits=vectors)

    def _vectors(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, 2, D) vectors of the first and second texts."""
        vectors = text_vectors(model, batch, self.pooling)
        if self.normalize:
            vectors = F.normalize(vectors, dim=-1)
        return vectors.view(2, -1, vectors.shape[-1]).transpose(0, 1)

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        if self.loss == "contrastive":
            raise ConfigError("model.metrics is set, but loss contrastive has no scores to measure; leave it out, or set loss to cosine.")
        labels = batch.labels["similarity"]
        keep = scored(labels)
        if outputs.logits is not None and bool(keep.any()):
            metrics.update(_cosines(outputs.logits[keep]), labels[keep])

    def records(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        assert outputs.logits is not None
        labels = batch.labels["similarity"].tolist()
        if self.loss == "cosine":
            return [{"cosine": c, "score": s} for c, s in zip(_cosines(outputs.logits).tolist(), labels, strict=True)]
        return [{"first": first, "second": second} for first, second in outputs.logits.cpu().numpy()]

    def score(self, predictions: Sequence[tuple[int, Prediction]], rows: NumberedRows) -> dict[str, float]:
        if self.loss == "cosine":
            pairs = np.array([(record["cosine"], record["score"]) for _, record in predictions])
            return {"pearson": pearson(*pairs.T), "spearman": spearman(*pairs.T)}
        vectors = dict(predictions)
        queries: dict[str, object] = {}
        corpus: dict[str, object] = {}
        right: dict[str, set[str]] = {}
        for number, row in rows:
            if number in vectors:
                query, text = (text_of(row, column, number) for column in self.columns(labelled=False))
                queries.setdefault(query, vectors[number]["first"])
                corpus.setdefault(text, vectors[number]["second"])
                right.setdefault(query, set()).add(text)
        places = {text: place for place, text in enumerate(corpus)}
        relevant = [{places[text] for text in right[query]} for query in queries]
        return retrieval(np.array([*queries.values()]), np.array([*corpus.values()]), relevant)

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        vectors = self._vectors(model, batch)
        if self.predicts == "vectors":
            return [{"first": first, "second": second} for first, second in vectors.tolist()]
        products = _cosines(vectors) if self.loss == "cosine" else (vectors[:, 0] * vectors[:, 1]).sum(-1)
        return [{"similarity": value} for value in products.tolist()]

    def complete_export(self, folder: Path) -> None:
        write_modules(folder, self.pooling, self.normalize, cosine=self.normalize or self.loss == "cosine")


def _cosines(vectors: Tensor) -> Tensor:
    """(B, 2, D) → (B,)."""
    return F.cosine_similarity(vectors[:, 0], vectors[:, 1], dim=-1)
