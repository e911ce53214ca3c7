"""Predictions of a split, in the order of its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from ftlab.batch import Batch
from ftlab.run_folder import finite, write_text


class PredictionWriter(Callback):
    """Writes `predictions.jsonl` or `predictions.parquet`, one record per row, with the row's number.

    Args:
        folder: The run's folder.
        format: The file's format.
    """

    def __init__(self, folder: Path, format: Literal["jsonl", "parquet"]) -> None:
        self.path = folder / f"predictions.{format}"
        self.records: list[dict[str, object]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.records += outputs

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        records = sorted(_gathered(self.records), key=lambda r: int(str(r["row"])))
        if not trainer.is_global_zero:
            return
        if self.path.suffix == ".parquet":
            _write_parquet(self.path, records)
        else:
            write_text(self.path, "".join(json.dumps(finite(r), ensure_ascii=False) + "\n" for r in records))


def _gathered(records: list[dict[str, object]]) -> list[dict[str, object]]:
    if not (dist.is_available() and dist.is_initialized()):
        return records
    parts: list[list[dict[str, object]] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, records)
    return [record for part in parts for record in part or []]


def _write_parquet(path: Path, records: Sequence[dict[str, object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(records)), path)
