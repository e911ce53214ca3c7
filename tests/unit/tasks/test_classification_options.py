"""Weights, smoothing, ordered labels and thresholds, each against somebody else's implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss, precision_recall_curve
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import Tensor

from ftlab.batch import Batch
from ftlab.errors import ConfigError, DataError
from ftlab.evaluation import Evaluation
from ftlab.rows import Row
from ftlab.tasks.base import Outputs
from ftlab.tasks.classification_metrics import BestThresholds, best_threshold
from ftlab.tasks.sequence_classification import SequenceClassification
from ftlab.tasks.sequence_classification_options import ordinal_log_probabilities
from tests.unit.tasks.test_sequence_classification import bound, collate, encode, model
from tests.unit.training import texts

NAMES = ["low", "mid", "high"]
ROWS: list[Row] = [{"text": t, "label": NAMES[min(i % 7, 2)]} for i, t in enumerate(texts(12))]
IDS = [min(i % 7, 2) for i in range(12)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def evaluated(task: SequenceClassification, logits: Tensor, labels: Tensor, size: int = 7) -> dict[str, float]:
    evaluation = Evaluation(task, torch.device("cpu"))
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        batch = Batch(inputs={}, labels={"label": labels[part]}, rows=torch.arange(len(labels))[part])
        evaluation.add(Outputs(sums={"label": torch.ones(())}, counts={"label": torch.ones(())}, logits=logits[part]), batch)
    return evaluation.result(lambda sums: sums)


def outputs_of(task: SequenceClassification, rows: Sequence[Row] = ROWS) -> tuple[Outputs, Tensor]:
    """What the task makes of some rows, and the model's logits."""
    classifier, batch = model(task), collate(task, encode(task, rows))
    with torch.no_grad():
        return task.forward(classifier, batch), classifier(**batch.inputs).logits


def test_a_row_that_is_skipped_has_no_weight() -> None:
    rows: list[Row] = [{"text": t, "label": label} for t, label in (("a", "x"), ("", "x"), (" ", "x"), ("b", "y"))]
    assert bound(SequenceClassification(class_weights="balanced", empty="skip"), rows).class_weights == [1.0, 1.0]


def test_an_order_is_of_the_labels_that_occur() -> None:
    rows: list[Row] = [{"text": "a", "label": stars} for stars in (5, 1, 3)]
    task = bound(SequenceClassification(kind="ordinal"), rows)
    assert task.labels == ["1", "3", "5"]
    assert [e["label"] for e in encode(task, rows)] == [2, 0, 1]


def test_several_labels_of_two_kinds() -> None:
    task = SequenceClassification(kind="multi", labels=["a", "b"])
    with pytest.raises(DataError, match="row 1 has the label 1 while others, from row 0, are names"):
        encode(task, [{"text": "a", "label": ["a"]}, {"text": "b", "label": [1]}])


def test_balanced_weights_are_scikit_learns() -> None:
    task = bound(SequenceClassification(labels=NAMES, class_weights="balanced"), ROWS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(IDS))
    assert task.class_weights == pytest.approx(expected.tolist())
    found, logits = outputs_of(task)
    weighted = log_loss(IDS, logits.double().softmax(1).numpy(), sample_weight=compute_sample_weight("balanced", IDS), normalize=False)
    assert float(found.sums["label"]) == pytest.approx(weighted, rel=1e-5)
    assert int(found.counts["label"]) == 12
    # over all training rows the weights have the mean 1, so the mean over rows is that over weights, torch's own
    torchs = torch.nn.CrossEntropyLoss(weight=torch.tensor(task.class_weights))(logits, torch.tensor(IDS))
    assert float(found.sums["label"]) / 12 == pytest.approx(float(torchs), rel=1e-5)


def test_the_sum_over_split_batches_is_that_over_the_whole() -> None:
    task = SequenceClassification(labels=NAMES, class_weights=[1.0, 5.0, 0.25], label_smoothing=0.1)
    classifier, examples = model(task), encode(task, ROWS)
    sums = [float(task.forward(classifier, collate(task, part)).sums["label"].detach()) for part in (examples, examples[:5], examples[5:])]
    assert sums[0] == pytest.approx(sums[1] + sums[2], rel=1e-5)


def test_smoothing_spreads_a_share_over_all_labels() -> None:
    task = SequenceClassification(labels=NAMES, label_smoothing=0.3)
    found, logits = outputs_of(task)
    soft = 0.7 * np.eye(3)[IDS] + 0.1
    assert float(found.sums["label"]) == pytest.approx(float(-(soft * logits.double().log_softmax(1).numpy()).sum()), rel=1e-5)


def test_weights_need_rows_of_every_label() -> None:
    with pytest.raises(DataError, match="no training row has the label 'never', so it has no balanced weight"):
        bound(SequenceClassification(labels=[*NAMES, "never"], class_weights="balanced"), ROWS)


def test_weights_beside_a_filler() -> None:
    task = SequenceClassification(labels=NAMES, class_weights=[1.0, 5.0, 0.25], label_smoothing=0.1)
    outputs = task.forward(model(task), collate(task, encode(task, ROWS)).unscored())
    assert float(outputs.sums["label"].detach()) == 0.0


def test_ordered_labels_have_probabilities_that_are_a_chain() -> None:
    logits = random(6, 3)
    found = ordinal_log_probabilities(logits).exp()
    above = logits.sigmoid()
    for row, p in zip(found, above.double(), strict=True):
        by_hand = [1 - p[0], p[0] * (1 - p[1]), p[0] * p[1] * (1 - p[2]), p[0] * p[1] * p[2]]
        assert row.tolist() == pytest.approx([float(v) for v in by_hand], rel=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(6))


def test_the_ordinal_loss_is_that_of_every_yes_and_no() -> None:
    """Corn: label k is decided among the rows that are at least k (Shi, Cao and Raschka 2023, equation 7)."""
    task = SequenceClassification(labels=NAMES, kind="ordinal")
    found, logits = outputs_of(task)
    labels = torch.tensor(IDS)
    expected = 0.0
    for k in range(2):
        some = labels >= k
        expected += float(
            torch.nn.functional.binary_cross_entropy_with_logits(logits[some, k], (labels[some] > k).float(), reduction="sum")
        )
    assert float(found.sums["label"]) == pytest.approx(expected, rel=1e-5)
    assert int(found.counts["label"]) == 12
    assert task.model_options()["id2label"] == {0: "above low", 1: "above mid"}


def test_ordered_labels_are_predicted_and_measured() -> None:
    task = SequenceClassification(labels=NAMES, kind="ordinal")
    logits, truth = random(40, 2), torch.arange(40) % 3
    guess = ordinal_log_probabilities(logits).argmax(1)
    found = evaluated(task, logits, truth)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, guess, weights="quadratic"), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float((truth == guess).float().mean()))
    classifier = model(task)
    with torch.no_grad():
        expected = ordinal_log_probabilities(classifier(**collate(task, encode(task, ROWS)).inputs).logits).argmax(1)
    records = task.predict(classifier, collate(task, encode(task, ROWS)))
    assert [r["label"] for r in records] == [NAMES[i] for i in expected]
    assert all(sum(r["scores"].values()) == pytest.approx(1) for r in records)  # type: ignore[attr-defined]


def test_an_order_must_be_said_where_names_do_not_tell() -> None:
    with pytest.raises(DataError, match="whose order nobody can tell"):
        bound(SequenceClassification(kind="ordinal"), ROWS)
    assert bound(SequenceClassification(kind="ordinal"), [{"label": "10"}, {"label": "9"}]).labels == ["9", "10"]
    assert bound(SequenceClassification(kind="ordinal"), [{"label": 0}, {"label": 2}]).labels == ["0", "2"]


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("thresholds", [0.5, [0.9, 0.1, 0.4]])
def test_the_best_thresholds_are_those_of_the_precision_recall_curve(size: int, thresholds: float | list[float]) -> None:
    task = SequenceClassification(kind="multi", labels=NAMES, thresholds=thresholds)
    logits, truth = random(64, 3).round(decimals=1), (random(64, 3, seed=1) + random(64, 3) > 0.6).float()
    found = evaluated(task, logits, truth, size)
    best = []
    for i, name in enumerate(NAMES):
        precision, recall, _ = precision_recall_curve(truth[:, i], logits[:, i])
        best.append(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
        chosen = logits[:, i].sigmoid() > found[f"threshold_{name}"]
        assert f1_score(truth[:, i], chosen) == pytest.approx(best[-1], rel=1e-5)
    assert found["f1_tuned"] == pytest.approx(np.mean(best), rel=1e-5)


def test_a_rank_without_a_row_gathers_the_thresholds_of_the_others() -> None:
    """What a rank gives to the gathering must have the type and the number of dimensions that the others give."""
    here, there = BestThresholds(NAMES, 0.5), BestThresholds(NAMES, 0.5)
    there.update(random(8, 3).sigmoid(), (random(8, 3, seed=1) > 0).long())
    states = iter([*there.preds, *there.target])

    def gather(own: Tensor, group: object) -> list[Tensor]:
        other = next(states)
        assert (own.dtype, own.ndim, own.numel()) == (other.dtype, other.ndim, 0)
        return [own, other]

    expected = there.compute()
    here.dist_sync_fn, here.distributed_available_fn = gather, lambda: True
    with pytest.warns(UserWarning, match="called before the ``update`` method"):
        assert here.compute() == expected


@pytest.mark.parametrize(("probabilities", "flags"), [([0.2, 0.7], [0, 0]), ([0.0, 0.0], [0, 1])])
def test_a_label_that_no_threshold_finds(probabilities: list[float], flags: list[int]) -> None:
    assert [float(v) for v in best_threshold(torch.tensor(probabilities), torch.tensor(flags))] == [0.0, 0.5]


def test_thresholds_decide_metrics_and_predictions() -> None:
    thresholds = [0.9, 0.1, 0.4]
    task = SequenceClassification(kind="multi", labels=NAMES, thresholds=thresholds)
    logits, truth = random(64, 3), (random(64, 3, seed=1) > 0.4).float()
    expected = f1_score(truth, logits.sigmoid() > torch.tensor(thresholds), average="macro")
    assert evaluated(task, logits, truth)["f1"] == pytest.approx(expected, rel=1e-6)
    rows: list[Row] = [{"text": t, "label": ["low"]} for t in texts(12)]
    for record in task.predict(model(task), collate(task, encode(task, rows))):
        scores: Any = record["scores"]
        assert record["labels"] == [n for n, t in zip(NAMES, thresholds, strict=True) if scores[n] > t]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"class_weights": "balanced", "kind": "multi"}, "class_weights is balanced while kind is multi"),
        ({"label_smoothing": 0.1, "kind": "regression"}, "label_smoothing is 0.1 while kind is regression"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it must be at least 0 and below 1"),
        ({"label_smoothing": math.nan}, "label_smoothing is nan"),
        ({"class_weights": [1.0, 2.0]}, "so model.task.labels must say which weight is whose"),
        ({"class_weights": [1.0], "labels": ["a", "b"]}, "class_weights is [1.0] for the labels ['a', 'b']"),
        ({"class_weights": [1.0, 0.0], "labels": ["a", "b"]}, "give each a finite number above 0"),
        ({"thresholds": 0.4}, "thresholds is 0.4 while kind is single"),
        ({"thresholds": 1.0, "kind": "multi"}, "thresholds is 1.0; each must be above 0 and below 1"),
        ({"thresholds": [], "kind": "multi"}, "thresholds is []"),
        ({"thresholds": [0.1, 0.2], "kind": "multi"}, "so model.task.labels must say which threshold is whose"),
        ({"thresholds": [0.1], "kind": "multi", "labels": ["a", "b"]}, "thresholds has 1 numbers for 2 labels"),
        ({"label_column": ["a", "b"], "kind": "ordinal"}, "label_column is a list while kind is ordinal"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SequenceClassification(**fields)
    assert said in str(caught.value)
