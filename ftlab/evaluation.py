"""One pass over a validation or test split: exact means, whatever the batch size and the number of ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ftlab.batch import Batch
from ftlab.tasks.base import Outputs, Task


class Evaluation:
    """Sums losses and counts in float64 and feeds the task's metrics.

    Args:
        task: What is evaluated.
        device: Where the sums live.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        self.metrics = task.metrics()
        if self.metrics is not None:
            self.metrics.to(device)
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, len(task.heads), dtype=wide, device=device)

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Count one batch."""
        values = [[outputs.sums[h] for h in self.task.heads], [outputs.counts[h] for h in self.task.heads]]
        self.sums += torch.stack([torch.stack([v.detach().to(self.sums) for v in row]) for row in values])
        if self.metrics is not None:
            self.task.update(self.metrics, outputs, batch)

    def result(self, sum_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """`loss`, `loss_<head>` where there are several, what the task derives, and its metrics.

        Args:
            sum_ranks: Adds a tensor over all ranks.
        """
        sums, counts = sum_ranks(self.sums).tolist()
        means = {h: s / c if c else float("nan") for h, s, c in zip(self.task.heads, sums, counts, strict=True)}
        weights = self.task.weights()
        figures = {"loss": sum(weights[h] * means[h] for h in means)}
        if len(means) > 1:
            figures |= {f"loss_{h}": mean for h, mean in means.items()}
        figures |= self.task.derived(means)
        if self.metrics is not None:
            figures |= {name: float(value) for name, value in self.metrics.compute().items() if value.numel() == 1}
        return figures
