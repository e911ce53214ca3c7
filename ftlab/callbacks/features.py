"""A fit that takes the hidden states below everything that trains from a file, where the environment names a folder for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ftlab.data.datamodule import FinetuneData
from ftlab.data.store import TokenStore
from ftlab.feature_files import name_of, table_at
from ftlab.features import Cut, Skipping, find_cut, noting, refused
from ftlab.lean import RunCallback, module_of
from ftlab.module import FinetuneModule
from ftlab.run_folder import FEATURES
from ftlab.strategies.base import TuningStrategy
from ftlab.tasks.base import Task

log = logging.getLogger(__name__)

_TOGETHER = 32
"""Rows of one length whose states are computed together."""


class CachedFeatures(RunCallback):
    """For the time of a fit; a model that is exported or tested afterwards runs whole.

    Args:
        folder: Where hidden states are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._skipping: Skipping | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = module_of(pl_module), cast("FinetuneData", trainer.datamodule)  # type: ignore[attr-defined]  # Lightning adds it
        require_same_rows(module.task, module.tuning, trainer.world_size)
        stores = [data.stores[name] for name in ("train", "val") if name in data.stores]
        with trainer.precision_plugin.forward_context():
            cut = find_cut(module.adapted, lambda: _run(module, stores[0], [0, 1]))
            name = [name_of(cut, store.folder.name, str(trainer.precision)) for store in stores]
            tables = [table_at(self.folder, n, lambda s=store: _states(module, cut, s)) for n, store in zip(name, stores, strict=True)]  # type: ignore[misc]  # mypy has no types for a lambda's defaults
        self._skipping = Skipping(cut, tables)
        self._skipping.install()
        log.info("cache_features: %d of %d layers are left out", cut.depth, len(cut.layers))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._skipping is not None:
            self._skipping.remove()
            self._skipping = None


def require_same_rows(task: Task, tuning: TuningStrategy, ranks: int = 1) -> None:
    """Refuse what is known to change rows before any model is loaded.

    Raises:
        ConfigError: Rows are drawn anew in each epoch, the strategy adds positions to them, or there are several ranks.
    """
    if type(task).draw is not Task.draw:
        raise refused(f"{type(task).__name__} draws its rows anew in each epoch")
    if tuning.virtual_tokens():
        raise refused(f"{type(tuning).__name__} adds positions to each row")
    if ranks > 1:
        raise refused(f"the run has {ranks} ranks, and this is for one device")


def _run(module: FinetuneModule, store: TokenStore, numbers: list[int]) -> None:
    examples = [store[number] for number in numbers if number < len(store)]
    module.task.forward(module.adapted, module.task.collate(examples, module.tokenizer).to(module.device))


def _states(module: FinetuneModule, cut: Cut, store: TokenStore) -> Mapping[bytes, Tensor]:
    """The states of every row; which rows are computed together depends on the store alone, and so do the states."""
    lengths = store.lengths
    order = np.argsort(lengths, kind="stable")
    with noting(cut) as found:
        for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            for begin in range(0, len(same), _TOGETHER):
                _run(module, store, same[begin : begin + _TOGETHER].tolist())
    return found


def cached_features() -> list[Callback]:
    """The callback where the environment asks for it."""
    folder = os.environ.get(FEATURES)
    return [CachedFeatures(Path(folder))] if folder else []
