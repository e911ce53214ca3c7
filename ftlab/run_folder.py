"""Where a run leaves everything: `runs/<name>/<id>/`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ftlab.errors import ConfigError, StorageError
from ftlab.folders import retried, sync_folder, try_writing

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHARED = "FTLAB_RUN_FOLDER"
"""Environment variable by which the ranks that Lightning starts find the folder of rank 0."""
FEATURES = "FTLAB_FEATURES"
"""Environment variable with the folder in which the runs of a study share hidden states."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run is kept.

    Args:
        root: The folder of all runs.
        name: Name of the experiment; null takes the file name of the last --config.
        id: Name of this run; null makes one from the time.
        study: The study that the run belongs to; W&B's group, a tag of MLflow.
        variant: What the run is a case of in its study; W&B's job type, a tag of MLflow.
        tags: Words to find the run by in W&B and MLflow.
        artifact: Whether W&B gets the folder `export/` as an artifact of the run.
        predictions: File format of what predict writes.
        learning_guard: What a tensor that does not learn, or moves though frozen, does after three steps; stop, warn, or off to not look.
    """

    root: str = "runs"
    name: str | None = None
    id: str | None = None
    study: str | None = None
    variant: str | None = None
    tags: list[str] = field(default_factory=list)
    artifact: bool = False
    predictions: Literal["jsonl", "parquet"] = "jsonl"
    learning_guard: Literal["stop", "warn", "off"] = "stop"

    def __post_init__(self) -> None:
        for key, value in (("name", self.name), ("id", self.id), ("study", self.study), ("variant", self.variant)):
            if value is not None and not _NAME.fullmatch(value):
                raise ConfigError(f"run.{key} is {value!r}; use letters, digits, '.', '_' and '-', at most 64, a letter or digit first.")

    def folder(self, default_name: str) -> Path:
        """The run's folder; made, and tried by writing to it.

        Args:
            default_name: The experiment's name where the options have none.

        Raises:
            StorageError: It cannot be written.
            ConfigError: There is already a run of this id.
        """
        if _SHARED in os.environ:
            return Path(os.environ[_SHARED])
        ranks_come_from_outside = "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1
        if ranks_come_from_outside and self.id is None:
            raise ConfigError("run.id is not set, but ranks are started from outside (torchrun, srun) and must agree on it; set run.id.")
        name = self.name or re.sub(r"[^A-Za-z0-9._-]", "_", default_name).lstrip("._-")[:64] or "run"
        identity = self.id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        path = Path(self.root).expanduser().resolve() / name / identity
        first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        # Hidden files are the lock and what a process left that was killed before it had written anything.
        if first and path.exists() and any(not p.name.startswith(".") for p in path.iterdir()):
            raise ConfigError(f"run.id {identity} already has a run in {path}; choose another id, or none.")
        try_writing(path)
        os.environ[_SHARED] = str(path)
        return path


def discard_if_empty(folder: Path) -> None:
    """Remove a run folder that nothing was written to."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        retried(lambda: _replace(path, text))
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); free space or choose another run.root.") from error


def _replace(path: Path, text: str) -> None:
    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with work.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            work.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write plain values as JSON, whole or not at all; what is not finite becomes null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: object) -> object:
    """`value` with every float that JSON does not know replaced by None."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
