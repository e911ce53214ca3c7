"""Records of all ranks, in the order of the examples."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import torch.distributed as dist

from ftlab.rows import Prediction

if TYPE_CHECKING:
    from ftlab.tasks.base import Task

Numbered = tuple[int, int, Prediction]
"""(number of the row, number of the example in the token cache, record)"""


def gathered(records: list[Numbered]) -> list[Numbered]:
    """The records of all ranks; a row may have several examples, so that its number alone does not give their order."""
    parts: list[list[Numbered]] = [records]
    if dist.is_available() and dist.is_initialized():
        parts = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, records)
    return sorted((record for part in parts for record in part), key=lambda record: record[:2])


def predictions_of(task: Task, records: Iterable[Numbered]) -> list[tuple[int, Prediction]]:
    """(number of the row, prediction): one per row where the task merges its examples, else one per example.

    Args:
        task: Whose records they are.
        records: In order.
    """
    if not task.merges:
        return [(row, record) for row, _, record in records]
    return [(row, task.merge([record for *_, record in parts])) for row, parts in groupby(records, key=lambda record: record[0])]
