"""One pass over a validation or test split: exact means, whatever the batch size and the number of ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from ftlab.batch import Batch
from ftlab.errors import ConfigError, DataError
from ftlab.gathering import Numbered, gathered, predictions_of
from ftlab.metrics import MetricCallable, collection, measuring
from ftlab.tasks.base import NumberedRows, Outputs, Task


def no_rows() -> NumberedRows:
    """For tasks that need none to score predictions."""
    return ()


class Evaluation:
    """Sums losses and counts in float64 and feeds the task's metrics.

    Args:
        task: What is evaluated.
        device: Where the sums live.
        more: Metrics beside the task's own.
    """

    def __init__(self, task: Task, device: torch.device, more: Sequence[MetricCallable] = ()) -> None:
        self.task = task
        self.metrics = task.metrics()
        self.more = collection(more, map(str, self.metrics or ()))
        wide = torch.float32 if device.type == "mps" else torch.float64
        for metrics in self._collections():
            if device.type == "mps":
                metrics.set_dtype(wide)
            metrics.to(device)
        self.records: list[Numbered] = []
        self.sums = torch.zeros(2, len(task.heads), dtype=wide, device=device)

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Count one batch."""
        values = [[outputs.sums[h] for h in self.task.heads], [outputs.counts[h] for h in self.task.heads]]
        self.sums += torch.stack([torch.stack([v.detach().to(self.sums) for v in row]) for row in values])
        if self.metrics is not None:
            self.task.update(self.metrics, outputs, batch)
        if self.more:
            with measuring(self.more, self.task):
                self.task.update(self.more, outputs, batch)
        if self.task.scores and batch.index:
            self.records += zip(batch.rows.tolist(), batch.index, self.task.records(outputs, batch), strict=True)

    def result(self, sum_ranks: Callable[[Tensor], Tensor], rows: Callable[[], NumberedRows] = no_rows) -> dict[str, float]:
        """`loss`, `loss_<head>` where there are several, what the task derives and scores, and its metrics.

        A head of weight 0 of which nothing was scored has the loss NaN. A metric with a value for each of several outputs gives their
        mean, and `<name>_0` and so on.

        Args:
            sum_ranks: Adds a tensor over all ranks.
            rows: The rows of the split.

        Raises:
            DataError: Nothing was scored for a head that has a weight.
        """
        sums, counts = sum_ranks(self.sums).tolist()
        weights = self.task.weights()
        means: dict[str, float] = {}
        for head, total, count in zip(self.task.heads, sums, counts, strict=True):
            if weights[head] and not count:
                raise DataError(
                    f"no position of the evaluated rows is scored for '{head}', so its loss is undefined; check their labels, or raise "
                    "trainer.limit_val_batches or limit_test_batches where it leaves most rows out."
                )
            means[head] = total / count if count else math.nan
        figures = {"loss": sum(weights[h] * means[h] for h in means if weights[h])}
        if len(means) > 1:
            figures |= {f"loss_{h}": mean for h, mean in means.items()}
        figures |= self.task.derived(means)
        if self.task.scores:
            figures |= self.task.score(predictions_of(self.task, gathered(self.records)), rows())
        if self.metrics:
            figures |= _computed(self.metrics)
        if self.more:
            with measuring(self.more, self.task):
                figures |= _computed(self.more)
        return figures

    def _collections(self) -> list[MetricCollection]:
        return [metrics for metrics in (self.metrics, self.more) if metrics]


def _computed(metrics: MetricCollection) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns of what is undefined; the NaN in its place says it
        computed = metrics.compute()
    figures: dict[str, float] = {}
    for name, value in computed.items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"model.metrics has {name}, which gives a {type(value).__name__} instead of numbers; name another.")
        figures[name] = float(value.double().mean())
        if value.numel() > 1:
            figures |= {f"{name}_{i}": float(v) for i, v in enumerate(value.flatten())}
    return figures
