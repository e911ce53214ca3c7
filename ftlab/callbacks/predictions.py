"""Predictions of a split, in the order of its rows."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch import LightningModule, Trainer

from ftlab.batch import Batch
from ftlab.errors import StorageError
from ftlab.gathering import Numbered, gathered, predictions_of
from ftlab.lean import RunCallback
from ftlab.rows import Prediction
from ftlab.run_folder import finite, write_text

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule


class PredictionWriter(RunCallback):
    """Writes `predictions.jsonl` or `predictions.parquet`: the predictions in the source's order, with the row's number.

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
        self.records += [(record.pop("row"), index, record) for index, record in zip(batch.index, outputs, strict=True)]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        records, self.records = gathered(self.records), []
        if not trainer.is_global_zero:
            return
        task = cast("FinetuneModule", pl_module).task
        predictions = predictions_of(task, records)
        rows: list[Prediction] = [{"row": row, **prediction} for row, prediction in predictions]
        if self.path.suffix == ".parquet":
            _write_parquet(self.path, rows)
        else:
            write_text(self.path, "".join(json.dumps(finite(r), ensure_ascii=False) + "\n" for r in rows))
        for name, text in task.prediction_files(predictions).items():
            write_text(self.path.with_name(name), text)


def _write_parquet(path: Path, records: list[Prediction]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        pq.write_table(pa.Table.from_pylist(records), work)
        os.replace(work, path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written ({error.strerror or error}); free space or choose another run.root.") from error
