"""What a classification may do beyond plain cross-entropy: weights, smoothing, thresholds, labels that have an order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ftlab.errors import ConfigError, DataError
from ftlab.tasks.classification_metrics import Kind


def check_weights(weights: str | list[float] | None, smoothing: float, kind: Kind, labels: Sequence[str] | None) -> None:
    """Refuse weights and smoothing that mean nothing.

    Raises:
        ConfigError: They are of another kind, out of range, or not one for each label.
    """
    for key, value in (("class_weights", weights), ("label_smoothing", smoothing)):
        if value and kind != "single":
            raise ConfigError(f"model.task.{key} is {value} while kind is {kind}; it is for kind single, so leave it out.")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"model.task.label_smoothing is {smoothing}; it must be at least 0 and below 1.")
    if not isinstance(weights, list):
        return
    if labels is None:
        raise ConfigError("model.task.class_weights is a list, so model.task.labels must say which weight is whose; set it.")
    if len(weights) != len(labels) or not all(0 < w < math.inf for w in weights):
        raise ConfigError(f"model.task.class_weights is {weights} for the labels {labels}; give each a finite number above 0.")


def check_thresholds(thresholds: float | list[float], kind: Kind, labels: Sequence[str] | None) -> None:
    """Refuse thresholds that mean nothing.

    Raises:
        ConfigError: They are of another kind, out of range, or not one for each label.
    """
    if thresholds != 0.5 and kind != "multi":
        raise ConfigError(f"model.task.thresholds is {thresholds} while kind is {kind}; it is for kind multi, so leave it out.")
    many = thresholds if isinstance(thresholds, list) else [thresholds]
    if not many or not all(0 < t < 1 for t in many):
        raise ConfigError(f"model.task.thresholds is {thresholds}; each must be above 0 and below 1.")
    if not isinstance(thresholds, list):
        return
    if labels is None:
        raise ConfigError("model.task.thresholds is a list, so model.task.labels must say which threshold is whose; set it.")
    if len(many) != len(labels):
        raise ConfigError(f"model.task.thresholds has {len(many)} numbers for {len(labels)} labels; give one for each.")


def balanced_weights(ids: Sequence[int], labels: Sequence[str]) -> list[float]:
    """One weight for each label: rows / (labels × rows of the label), as scikit-learn has it.

    Raises:
        DataError: A label has no row.
    """
    counts = np.bincount(ids, minlength=len(labels))
    if not counts.all():
        raise DataError(
            f"no training row has the label '{labels[int(counts.argmin())]}', so it has no balanced weight; list model.task.class_weights."
        )
    return [len(ids) / (len(labels) * int(count)) for count in counts]


def ordinal_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (B, K−1) of "above label k, given that it is above all lower ones" → log p of each of K labels (B, K)."""
    above = F.pad(F.logsigmoid(logits).cumsum(-1), (1, 0))
    return above + F.pad(F.logsigmoid(-logits), (0, 1))
