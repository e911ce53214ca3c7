"""Metrics that a configuration names, against scikit-learn on the same predictions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import regression as r
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MulticlassROC,
    MultilabelAUROC,
)

from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.evaluation import Evaluation
from ftlab.metrics import MetricCallable
from ftlab.module import FinetuneModule
from ftlab.strategies.full import Full
from ftlab.tasks.base import Outputs, Task
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.multiple_choice import MultipleChoice
from ftlab.tasks.sentence_embedding import SentenceEmbedding
from ftlab.tasks.sequence_classification import SequenceClassification
from tests.unit.exports import BERT, LLAMA

NAMES = ["a", "b", "c"]
SINGLE = SequenceClassification(labels=NAMES)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def evaluated(task: Task, more: list[MetricCallable], logits: Tensor, labels: Tensor, size: int = 7) -> dict[str, float]:
    evaluation = Evaluation(task, torch.device("cpu"), more)
    (head,) = task.heads
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        rows = torch.arange(len(labels))[part]
        batch = Batch(inputs={}, labels={head: labels[part]}, rows=rows, index=tuple(rows.tolist()))
        evaluation.add(Outputs(sums={head: torch.ones(())}, counts={head: torch.ones(())}, logits=logits[part]), batch)
    return evaluation.result(lambda sums: sums)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_figures_are_scikit_learns_whatever_the_batches(size: int) -> None:
    logits, truth = random(64, 3), torch.arange(64) % 3
    more: list[MetricCallable] = [
        partial(MulticlassMatthewsCorrCoef, num_classes=3),
        partial(MulticlassF1Score, num_classes=3, average="micro"),
        partial(MulticlassF1Score, num_classes=3, average="none"),
    ]
    found = evaluated(SINGLE, more, logits, truth, size)
    guess = logits.argmax(1)
    each = sk.f1_score(truth, guess, average=None)
    expected = {
        "multiclass_matthews_corr_coef": sk.matthews_corrcoef(truth, guess),
        "multiclass_f1_score": sk.f1_score(truth, guess, average="micro"),
        "multiclass_f1_score_2": each.mean(),
        **{f"multiclass_f1_score_2_{i}": value for i, value in enumerate(each)},
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["mcc"] == pytest.approx(expected["multiclass_matthews_corr_coef"], abs=1e-6)  # the task's own stay


def test_metrics_that_look_at_probabilities() -> None:
    logits, truth = random(64, 3), (random(64, 3, seed=1) > 0).float()
    task = SequenceClassification(labels=NAMES, kind="multi", thresholds=[0.9, 0.1, 0.5])
    found = evaluated(task, [partial(MultilabelAUROC, num_labels=3)], logits, truth)
    assert found["multilabel_auroc"] == pytest.approx(sk.roc_auc_score(truth, logits.sigmoid()), abs=1e-6)


def test_other_tasks_feed_them_too() -> None:
    numbers, truth = random(64, 1), random(64, 1, seed=1)
    task = SequenceClassification(kind="regression", labels=["x"], label_column="x")
    found = evaluated(task, [r.MeanAbsoluteError], numbers, truth)
    assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, numbers), rel=1e-5)
    choices = evaluated(
        MultipleChoice(choices=3), [partial(MulticlassCalibrationError, num_classes=3)], random(64, 3), torch.arange(64) % 3
    )
    assert 0 < choices["multiclass_calibration_error"] < 1
    vectors = random(64, 2, 5)
    cosines = torch.nn.functional.cosine_similarity(vectors[:, 0], vectors[:, 1])
    found = evaluated(SentenceEmbedding(), [r.MeanAbsoluteError], vectors, torch.linspace(0, 1, 64))
    assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(torch.linspace(0, 1, 64), cosines), rel=1e-5)


def test_a_task_without_metrics_takes_none() -> None:
    with pytest.raises(ConfigError, match="model.metrics is set, but CausalLM gives nothing that one metric could look at"):
        FinetuneModule(LLAMA, CausalLM(), Full(), metrics=[r.MeanAbsoluteError])
    with pytest.raises(ConfigError, match="model.metrics is set, but BertPretraining gives nothing that one metric could look at"):
        FinetuneModule(BERT, BertPretraining(), Full(), metrics=[r.MeanAbsoluteError])
    FinetuneModule(LLAMA, CausalLM(), Full(), metrics=[])


def test_a_metric_that_refuses_its_arguments_is_found_before_the_data() -> None:
    with pytest.raises(ConfigError, match=r"model.metrics\[1\] refuses its arguments: .*num_classes"):
        FinetuneModule(BERT, SINGLE, Full(), metrics=[r.MeanAbsoluteError, partial(MulticlassF1Score, num_classes=1)])


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        (
            SINGLE,
            partial(MulticlassF1Score, num_classes=2),
            "model.metrics has multiclass_f1_score, which cannot measure what SequenceClass",
        ),
        (SINGLE, partial(MulticlassROC, num_classes=3), "model.metrics has multiclass_roc, which gives a tuple instead of numbers"),
        (SINGLE, partial(BinaryAUROC, validate_args=False), "model.metrics has binary_auroc, which cannot measure what SequenceClass"),
        (SentenceEmbedding(loss="contrastive"), r.MeanAbsoluteError, "loss contrastive has no scores to measure"),
    ],
)
def test_metrics_that_cannot_measure(task: Task, metric: MetricCallable, said: str) -> None:
    logits = random(8, 2, 5) if isinstance(task, SentenceEmbedding) else random(8, 3)
    with pytest.raises(ConfigError) as caught:
        evaluated(task, [metric], logits, torch.arange(8) % 3)
    assert said in str(caught.value)


def test_they_are_logged_and_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    from ftlab.data.datamodule import FinetuneData
    from ftlab.data.sources.in_memory import Rows
    from tests.unit.training import texts, tiny_module, trainer

    items: Any = [{"text": t, "label": NAMES[i % 3]} for i, t in enumerate(texts(23))]
    found = []
    for size in (2, 40):
        module = tiny_module(tmp_path, SINGLE, "bert")
        module.metrics = [partial(MulticlassMatthewsCorrCoef, num_classes=3)]
        torch.manual_seed(0)
        data = FinetuneData(Rows(items={"val": items}), val_split="val", eval_batch_size=size)
        (figures,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        found.append(dict(figures))
    assert found[0]["val_multiclass_matthews_corr_coef"] == pytest.approx(found[1]["val_multiclass_matthews_corr_coef"], abs=1e-6)
