"""Predictions of a split, in the order of its rows."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from ftlab.batch import Batch
from ftlab.errors import StorageError
from ftlab.lean import RunCallback
from ftlab.run_folder import finite, write_text

Numbered = tuple[int, dict[str, object]]
"""(number of the example in the token cache, record)"""


class PredictionWriter(RunCallback):
    """Writes `predictions.jsonl` or `predictions.parquet`: a record per example, in the source's order, with the row's number.

    Args:
        folder: The run's folder.
        format: The file's format.
    """

    def __init__(self, folder: Path, format: Literal["jsonl", "parquet"]) -> None:
        self.path = folder / f"predictions.{format}"
        self.records: list[Numbered] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.records += zip(batch.index, outputs, strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A row may have several examples, so that its number alone does not give their order.
        records = [record for _, record in sorted(_gathered(self.records), key=lambda numbered: numbered[0])]
        self.records = []
        if not trainer.is_global_zero:
            return
        if self.path.suffix == ".parquet":
            _write_parquet(self.path, records)
        else:
            write_text(self.path, "".join(json.dumps(finite(r), ensure_ascii=False) + "\n" for r in records))


def _gathered(records: list[Numbered]) -> list[Numbered]:
    if not (dist.is_available() and dist.is_initialized()):
        return records
    parts: list[list[Numbered] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, records)
    return [record for part in parts for record in part or []]


def _write_parquet(path: Path, records: list[dict[str, object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        pq.write_table(pa.Table.from_pylist(records), work)
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written ({error.strerror or error}); free space or choose another run.root.") from error
