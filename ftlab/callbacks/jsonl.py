"""`metrics.jsonl`: what was measured, a line every few steps and for each validation; every other logger holds a copy."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ftlab.errors import StorageError
from ftlab.folders import sync_folder
from ftlab.run_folder import finite, write_text


class JsonLinesLogger(Logger):
    """Appends to one file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return "0"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        record = {"step": step, "time": round(time.time(), 3), **metrics}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite(record), allow_nan=False) + "\n")
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}); free space and start again.") from error

    @rank_zero_only
    def sync(self) -> None:
        """Make what was logged outlive a power cut: a run that goes on from a checkpoint does not log the steps before it again."""
        if not self.path.is_file():
            return
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}); free space and start again.") from error

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Take out what was logged after `step`, and a last line that was cut: a run that goes on writes them again."""
        if not self.path.is_file():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    @rank_zero_only
    def forget_validation(self, step: int) -> None:
        """Take out the record of the validation at `step`."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not ((record := json.loads(line))["step"] == step and "val_loss" in record)]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # Lightning's signature
        """Nothing: the configuration stands in config.yaml."""


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
