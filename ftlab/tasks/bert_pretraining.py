"""BERT's own objective: masked tokens and the next sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ftlab.batch import IGNORE, Batch
from ftlab.errors import ConfigError, DataError
from ftlab.probe import probe_inputs, probing
from ftlab.rows import Example, Examples, Key, Prediction, Stored
from ftlab.tasks.base import NumberedRows, Outputs
from ftlab.tasks.collate import pad
from ftlab.tasks.masked_lm import mlm_records, mlm_sum
from ftlab.tasks.masked_lm_head import MaskedOutputs, scored
from ftlab.tasks.masking import MaskingTask, padded_labels, pool_of
from ftlab.tasks.next_sentence import nsp_labels, nsp_records, nsp_sum
from ftlab.tasks.segments import SegmentTask
from ftlab.tasks.segments_frame import frame_of

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

_ORDER_LOGITS = ("seq_relationship_logits", "sop_logits")
"""What the pre-training classes of BERT and its kin, and of ALBERT, call their logits (B, 2) of the next sentence."""


@dataclass(frozen=True, kw_only=True)
class BertPretraining(SegmentTask, MaskingTask):
    """Predict masked tokens and whether the second segment goes on from the first, each loss over its own count.

    Pairs are made first, then masked. A document of one sentence is masked all the same, and no pair is scored in it.

    Args:
        mlm_weight: Weight of the loss of the masked tokens.
        nsp_weight: Weight of the loss of the pairs; with 0 the same rows train on masked tokens alone.
    """

    heads = ("mlm", "nsp")
    auto_class = "AutoModelForPreTraining"
    paper = "Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
    keeps_single = True

    mlm_weight: float = 1.0
    nsp_weight: float = 1.0

    def __post_init__(self) -> None:
        SegmentTask.__post_init__(self)
        MaskingTask.__post_init__(self)
        weights = (self.mlm_weight, self.nsp_weight)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ConfigError(
                f"model.task.mlm_weight is {weights[0]:g} and nsp_weight {weights[1]:g}; neither may be below 0 or without an end, and one "
                "must be above 0, so set both to finite numbers such as 1."
            )

    def weights(self) -> dict[str, float]:
        return {"mlm": self.mlm_weight, "nsp": self.nsp_weight}

    def check(self, model: nn.Module) -> None:
        config: Any = model.config
        with probing(model):
            outputs = model(**probe_inputs(model, config.get_text_config().vocab_size))
        if _order_name(outputs) is None:
            raise ConfigError(
                f"model.backbone.name is {config.name_or_path}, whose {type(model).__name__} has no output for the next sentence; "
                "name a BERT or an ALBERT, or choose MaskedLM."
            )

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        pool_of(tokenizer)  # a tokenizer without a mask token is refused before the rows are read
        paired: bool | None = None
        for example in self.spans(rows, tokenizer, max_length, words=self.unit != "token"):
            paired = bool(paired) or len(cast("list[int]", example["ends"])) > 1
            yield example
        if labelled and self.nsp_weight and paired is False:
            raise DataError(
                f"no document has more than one sentence, with model.task.sentences {self.sentences}, so there is no pair to score; "
                "give the split longer documents, or set model.task.nsp_weight to 0."
            )

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        random = np.random.default_rng(key)
        first, second, label = self.pair(examples, index, random)
        parts = [first] if second is None else [first, second]
        frame = frame_of(tokenizer, len(parts))
        starts = frame.starts(*(p[1] for p in parts)) if len(first) > 1 else None
        ids, labels = self.masked(frame.ids(*(p[0] for p in parts)), starts, pool_of(tokenizer), random)
        drawn = {"input_ids": ids, "row": examples[index]["row"], "mlm": labels, "nsp": np.array([label])}
        types = frame.type_ids(*(p[0] for p in parts))
        return drawn if types is None else {**drawn, "token_type_ids": types}

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        labels = {"mlm": padded_labels(examples, "mlm"), "nsp": nsp_labels(examples)}
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        return Batch(inputs=pad(examples, tokenizer), labels=labels, rows=rows)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        found = scored(model, batch)
        total, count, hits = mlm_sum(found)
        logits = _order_logits(found.outputs)
        order, pairs = nsp_sum(logits, batch.labels["nsp"])
        return MaskedOutputs(sums={"mlm": total, "nsp": order}, counts={"mlm": count, "nsp": pairs}, logits=logits, hits=hits)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanMetric, MetricCollection

        # Of nothing a mean is NaN, where an accuracy would be 0; float64 counts on where float32 ends, at 16.8 million.
        return MetricCollection({"mlm_accuracy": MeanMetric(), "nsp_accuracy": MeanMetric()}, compute_groups=False).set_dtype(torch.float64)

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        if isinstance(outputs, MaskedOutputs) and outputs.hits is not None and len(outputs.hits):
            metrics["mlm_accuracy"].update(outputs.hits)
        keep = batch.labels["nsp"] != IGNORE
        if outputs.logits is not None and bool(keep.any()):
            metrics["nsp_accuracy"].update(outputs.logits[keep].argmax(-1) == batch.labels["nsp"][keep])

    def derived(self, losses: Mapping[str, float]) -> dict[str, float]:
        return {"pseudo_perplexity": math.exp(min(losses["mlm"], 700.0))}

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        found = scored(model, batch)
        pairs = nsp_records(_order_logits(found.outputs), batch.labels["nsp"])
        return [tokens | pair for tokens, pair in zip(mlm_records(found, batch), pairs, strict=True)]


def _order_name(outputs: Mapping[str, object]) -> str | None:
    return next((name for name in _ORDER_LOGITS if name in outputs), None)


def _order_logits(outputs: Any) -> Tensor:
    name = _order_name(outputs)
    assert name is not None  # check has refused the model
    logits: Tensor = outputs[name]
    return logits.float()
