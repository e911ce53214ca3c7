"""Half precision throughout (`16-true`, `bf16-true`), for batches and sums that keep their own types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn


class HalfWeights(HalfPrecision):
    """Lightning's plugin, but for what it does beside the weights.

    It would convert the numbers in a batch, which is frozen and whose labels must stay exact, and make half the default type while
    the model runs, in which a count of scored positions is rounded from 257 on.
    """

    def convert_input(self, data: Any) -> Any:
        return data

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        yield


def half_plugin(precision: object) -> HalfWeights | None:
    """The plugin for a value of `trainer.precision`; None where Lightning's own is right."""
    return HalfWeights(precision) if precision in ("16-true", "bf16-true") else None


def converted(model: nn.Module, precision: object) -> nn.Module:
    """`model`, whose weights are changed in place to the type that a value of `trainer.precision` gives all of them, if it does."""
    half = half_plugin(precision)
    return model if half is None else half.convert_module(model)
