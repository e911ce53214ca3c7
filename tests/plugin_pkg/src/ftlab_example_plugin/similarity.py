"""Similarity of two sentences, each encoded on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss
from torchmetrics import MetricCollection, PearsonCorrCoef
from transformers import PreTrainedTokenizerBase

from ftlab.batch import Batch, scored
from ftlab.errors import DataError
from ftlab.rows import Example, Row, Stored
from ftlab.tasks.base import NumberedRows, Outputs, Task, text_of, with_text
from ftlab.tasks.collate import pad


@dataclass(frozen=True, kw_only=True)
class SentenceSimilarity(Task):
    """Fit the cosine of two sentence vectors to a score (Reimers and Gurevych 2019, section 3: mean pooling, squared error).

    Args:
        first_column: The column of one sentence.
        second_column: The column of the other.
        score_column: The column of the score, from 0 to 1.
        empty: What to do with a row without text; error names it, skip leaves it out and counts it.
    """

    heads = ("similarity",)
    auto_class = "AutoModel"
    paper = "Reimers and Gurevych (2019), Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks"

    first_column: str = "sentence1"
    second_column: str = "sentence2"
    score_column: str = "score"
    empty: Literal["error", "skip"] = "error"

    def columns(self, labelled: bool) -> tuple[str, ...]:
        return (self.first_column, self.second_column, *([self.score_column] if labelled else []))

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        for number, row in with_text(with_text(rows, self.first_column, self.empty), self.second_column, self.empty):
            first, second = (tokenizer(text_of(row, c, number))["input_ids"] for c in (self.first_column, self.second_column))
            if max(len(first), len(second)) > max_length:
                raise DataError(f"row {number} has a sentence of more than {max_length} tokens; shorten it or raise data.max_length.")
            score = self._score(row, number) if labelled else float("nan")
            yield {"input_ids": first, "second": second, "score": score, "row": number}

    def _score(self, row: Row, number: int) -> float:
        value = row[self.score_column]
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"row {number}, column '{self.score_column}' holds {value!r:.60}; it must be a number from 0 to 1.")
        return value

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        # The firsts, then the seconds: one pass over 2·B sentences.
        inputs = pad([*examples, *({"input_ids": e["second"]} for e in examples)], tokenizer)
        labels = torch.tensor([float(e["score"][0]) for e in examples])
        return Batch(inputs=inputs, labels={"similarity": labels}, rows=torch.tensor([int(e["row"][0]) for e in examples]))

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        cosine, labels = _cosine(model, batch), batch.labels["similarity"]
        keep = scored(labels)
        total = mse_loss(cosine[keep], labels[keep], reduction="sum")
        return Outputs(sums={"similarity": total}, counts={"similarity": keep.sum().float()}, logits=cosine)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"pearson": PearsonCorrCoef()})

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        keep = scored(batch.labels["similarity"])
        if outputs.logits is not None and bool(keep.any()):
            metrics.update(outputs.logits[keep], batch.labels["similarity"][keep])

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, object]]:
        return [{"score": value} for value in _cosine(model, batch).tolist()]


def _cosine(model: nn.Module, batch: Batch) -> Tensor:
    """(B,) cosine of the mean hidden states, padding left out."""
    states = model(**batch.inputs).last_hidden_state.float()
    mask = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"]))  # absent where nothing is padded
    weights = mask[..., None].float()
    first, second = ((states * weights).sum(1) / weights.sum(1)).chunk(2)
    return cosine_similarity(first, second)
