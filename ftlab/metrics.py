"""Metrics beyond a task's own: torchmetrics classes that a configuration names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torchmetrics import Metric, MetricCollection

from ftlab.errors import ConfigError
from ftlab.tasks.base import Task

MetricCallable = Callable[[], Metric]
"""What an entry of `model.metrics` becomes: everything set, the metric not yet made."""


def check_metrics(chosen: Sequence[MetricCallable], task: Task) -> None:
    """Refuse metrics of a task that feeds none, and those that do not take their arguments.

    Raises:
        ConfigError: Says which.
    """
    if chosen and (type(task).update is Task.update or len(task.heads) > 1):
        raise ConfigError(f"model.metrics is set, but {type(task).__name__} gives nothing that one metric could look at; leave it out.")
    collection(chosen, ())


def collection(chosen: Sequence[MetricCallable], taken: Iterable[str]) -> MetricCollection:
    """Fresh metrics by the names of their classes in snake case; a name that is taken gets a number.

    Args:
        chosen: From the configuration.
        taken: Names of other figures.

    Raises:
        ConfigError: A metric refuses its arguments.
    """
    found: dict[str, Metric | MetricCollection] = {}
    names = set(taken)
    for place, make in enumerate(chosen):
        try:
            metric = make()
        except (ValueError, TypeError, ModuleNotFoundError) as error:
            raise ConfigError(f"model.metrics[{place}] refuses its arguments: {' '.join(str(error).split()).rstrip('.')}.") from error
        name = _snake(type(metric).__name__)
        same = sum(re.fullmatch(rf"{name}(_\d+)?", n) is not None for n in names)
        name = f"{name}_{same + 1}" if same else name
        found[name] = metric
        names.add(name)
    return MetricCollection(found, compute_groups=False)


@contextmanager
def measuring(metrics: MetricCollection, task: Task) -> Iterator[None]:
    """Whatever metrics say that the task did not choose, as one sentence.

    Raises:
        ConfigError: They cannot measure what it gives.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigError(
            f"model.metrics has {', '.join(map(str, metrics))}, which cannot measure what {type(task).__name__} gives: {said}; name others."
        ) from error


def _snake(name: str) -> str:
    """`MulticlassF1Score` → `multiclass_f1_score`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
