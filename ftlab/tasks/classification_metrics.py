"""The default metrics of classification and regression, all by torchmetrics."""

from __future__ import annotations

from typing import Literal

from torchmetrics import Metric, MetricCollection


def classification_metrics(kind: Literal["single", "multi", "regression"], count: int) -> MetricCollection:
    """Fresh metrics: accuracy, macro precision, recall and F1, and Matthews correlation; or those of regression.

    Args:
        kind: As in `SequenceClassification`.
        count: Number of labels or of regression targets.
    """
    if kind == "regression":
        return MetricCollection(_regression(count))
    from torchmetrics import classification as c

    if kind == "multi":
        return MetricCollection(
            {
                "accuracy": c.MultilabelAccuracy(count, average="micro"),
                "precision": c.MultilabelPrecision(count),
                "recall": c.MultilabelRecall(count),
                "f1": c.MultilabelF1Score(count),
                "mcc": c.MultilabelMatthewsCorrCoef(count),
            },
            compute_groups=False,
        )
    return MetricCollection(
        {
            "accuracy": c.MulticlassAccuracy(count, average="micro"),
            "precision": c.MulticlassPrecision(count),
            "recall": c.MulticlassRecall(count),
            "f1": c.MulticlassF1Score(count),
            "mcc": c.MulticlassMatthewsCorrCoef(count),
        },
        compute_groups=False,
    )


def _regression(count: int) -> dict[str, Metric]:
    from torchmetrics import regression as r

    return {
        "mse": r.MeanSquaredError(num_outputs=count),
        "pearson": r.PearsonCorrCoef(num_outputs=count),
        "spearman": r.SpearmanCorrCoef(num_outputs=count),
    }
