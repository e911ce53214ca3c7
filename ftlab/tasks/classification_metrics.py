"""The default metrics of classification and regression, all by torchmetrics."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torchmetrics import Metric, MetricCollection


def classification_metrics(kind: Literal["single", "multi", "regression"], count: int) -> MetricCollection:
    """Fresh metrics: accuracy, macro precision, recall and F1, and Matthews correlation; or those of regression.

    As in scikit-learn, a class that is neither predicted nor present is left out of the macro means; of several labels per row
    each counts, as 0 where its figure is undefined. Accuracy and Matthews correlation of several labels are over all 0/1 decisions.

    Args:
        kind: As in `SequenceClassification`.
        count: Number of labels or of regression targets.
    """
    if kind == "regression":
        return MetricCollection(_regression(count)).set_dtype(torch.float64)  # correlations of nearly constant outputs cancel
    from torchmetrics import classification as c

    if kind == "multi":
        return MetricCollection(
            {
                "accuracy": c.MultilabelAccuracy(count, average="micro", validate_args=False),
                "precision": c.MultilabelPrecision(count, validate_args=False),
                "recall": c.MultilabelRecall(count, validate_args=False),
                "f1": c.MultilabelF1Score(count, validate_args=False),
                "mcc": c.MultilabelMatthewsCorrCoef(count, validate_args=False),
            },
            compute_groups=False,
        )
    return MetricCollection(
        {
            "accuracy": c.MulticlassAccuracy(count, average="micro", validate_args=False),
            "precision": c.MulticlassPrecision(count, validate_args=False),
            "recall": c.MulticlassRecall(count, validate_args=False),
            "f1": c.MulticlassF1Score(count, validate_args=False),
            "mcc": c.MulticlassMatthewsCorrCoef(count, validate_args=False),
        },
        compute_groups=False,
    )


def _regression(count: int) -> dict[str, Metric | MetricCollection]:
    from torchmetrics import regression as r

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*will save all targets and predictions in the buffer.*")  # two numbers per row
        return {
            "mse": r.MeanSquaredError(num_outputs=count),
            "pearson": r.PearsonCorrCoef(num_outputs=count),
            "spearman": r.SpearmanCorrCoef(num_outputs=count),
        }
