"""The default metrics of classification and regression, all by torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassMatthewsCorrCoef, MultilabelMatthewsCorrCoef
from torchmetrics.regression import SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from ftlab.tasks.retrieval import spearman

Kind: TypeAlias = Literal["single", "ordinal", "multi", "regression"]


def classification_metrics(kind: Kind, names: Sequence[str], thresholds: float | list[float] = 0.5) -> MetricCollection:
    """Fresh metrics: accuracy, macro precision, recall and F1, and Matthews correlation; or those of regression.

    As in scikit-learn, a class that is neither predicted nor present is left out of the macro means; of several labels per row
    each counts, as 0 where its figure is undefined. Accuracy and Matthews correlation of several labels are over all 0/1 decisions.
    Matthews correlation is 0 where it is undefined: where one class alone is present, or is predicted. A correlation of numbers is NaN
    where either side is constant, as it is with one row. Ordered labels also have Cohen's kappa with quadratic weights, and several
    labels the thresholds with the best F1.

    Args:
        kind: As in `SequenceClassification`.
        names: Of the labels or of the regression targets.
        thresholds: Of several labels; the metrics are fed with probabilities that are moved so that each one's is at a half.
    """
    count = len(names)
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
                "mcc": MultilabelMcc(count, validate_args=False),
                "tuned": BestThresholds(names, thresholds),
            },
            compute_groups=False,
        )
    return MetricCollection(
        {
            "accuracy": c.MulticlassAccuracy(count, average="micro", validate_args=False),
            "precision": c.MulticlassPrecision(count, validate_args=False),
            "recall": c.MulticlassRecall(count, validate_args=False),
            "f1": c.MulticlassF1Score(count, validate_args=False),
            "mcc": MulticlassMcc(count, validate_args=False),
            **({"kappa": c.MulticlassCohenKappa(count, weights="quadratic", validate_args=False)} if kind == "ordinal" else {}),
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
            "spearman": Spearman(num_outputs=count),
        }


class MulticlassMcc(MulticlassMatthewsCorrCoef):
    """Matthews correlation; that of torchmetrics cancels over many rows, and is a made-up figure where it is undefined."""

    def compute(self) -> Tensor:
        """Of the rows seen."""
        return matthews(self.confmat)


class MultilabelMcc(MultilabelMatthewsCorrCoef):
    """The same over all 0/1 decisions."""

    def compute(self) -> Tensor:
        """Of the rows seen."""
        return matthews(self.confmat.sum(0))


def matthews(confusion: Tensor) -> Tensor:
    """Matthews correlation of several classes (Gorodkin 2004), 0 where one class alone is present or predicted.

    Args:
        confusion: (classes, classes) counts.
    """
    counts = confusion.cpu().double()
    true, predicted = counts.sum(1), counts.sum(0)
    together = counts.sum() * counts.trace() - true @ predicted
    apart = [counts.sum() ** 2 - side @ side for side in (true, predicted)]
    return (together / (apart[0] * apart[1]).sqrt()).nan_to_num(0.0).to(confusion.device, torch.float32)


class Spearman(SpearmanCorrCoef):
    """Spearman's correlation, NaN where it is undefined; torchmetrics adds a small number to the denominator, and has 0 for a constant."""

    def compute(self) -> Tensor:
        """Of the rows seen, one value for each output."""
        preds, target = (dim_zero_cat(state).cpu().numpy().reshape(-1, self.num_outputs).T for state in (self.preds, self.target))
        found = [spearman(*pair) for pair in zip(preds, target, strict=True)]
        return torch.tensor(found, device=self.device, dtype=torch.float64).squeeze()


class BestThresholds(Metric):
    """For each of several labels, the threshold with the best F1 on the rows seen, and the mean of these F1s.

    `f1_tuned` is what the rows give that the thresholds were chosen on, so it flatters; another split tells what they are worth.

    Args:
        names: Of the labels.
        thresholds: As in `classification_metrics`.
    """

    full_state_update = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, names: Sequence[str], thresholds: float | list[float]) -> None:
        super().__init__()
        self.names = list(names)
        self.thresholds = thresholds
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep (B, labels) probabilities and 0/1 labels."""
        # Flat and of one type, as is the empty state that torchmetrics gathers from a rank without a row.
        self.preds.append(preds.flatten())
        self.target.append(target.flatten().to(preds.dtype))

    def compute(self) -> dict[str, Tensor]:
        """`f1_tuned`, and `threshold_<label>`."""
        preds, target = (dim_zero_cat(state).view(-1, len(self.names)).T for state in (self.preds, self.target))
        pairs = zip(preds, target, strict=True)
        scores, moved = (torch.stack(found) for found in zip(*(best_threshold(p, t) for p, t in pairs), strict=True))
        thresholds = (moved.logit() + torch.as_tensor(self.thresholds).to(moved).logit()).sigmoid()
        return {"f1_tuned": scores.mean(), **{f"threshold_{n}": t for n, t in zip(self.names, thresholds, strict=True)}}


def best_threshold(probabilities: Tensor, flags: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) probabilities and 0/1 flags → the best F1 and a threshold above which labels give it, halfway between two probabilities.

    Where no flag is set, the F1 is 0 and the threshold a half.
    """
    ranked, order = probabilities.sort(descending=True)
    hits = flags[order].float().cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1, device=hits.device) + hits[-1])
    following = torch.cat([ranked[1:], ranked.new_zeros(1)])
    f1 = f1.where(ranked > following, 0.0)  # equal probabilities are on one side together
    best = f1.argmax()
    half = torch.full_like(f1[best], 0.5)
    return f1[best], (ranked[best] + following[best]) / 2 if f1[best] else half
