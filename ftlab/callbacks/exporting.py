"""The end of a fit: what was trained, in a form that others open."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from ftlab import checkpoint_io
from ftlab.callbacks.record import parameter_counts
from ftlab.errors import CheckpointError
from ftlab.export import base_is_lost, export_run
from ftlab.folders import published
from ftlab.lean import RunCallback, module_of
from ftlab.merging import merged, put
from ftlab.model_card import Facts
from ftlab.redact import redacted
from ftlab.run_folder import write_json
from ftlab.samples import short_sample
from ftlab.saving import is_plain, save_whole
from ftlab.strategies.base import NotMergeableError, TuningStrategy

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

_SHARE = 0.5
"""Of the host's memory that a merged model may take."""


class Export(RunCallback):
    """Writes `export/` from the best checkpoint, or from the last where nothing was validated.

    Args:
        folder: The run's folder.
        config: Gives the complete configuration.
    """

    def __init__(self, folder: Path, config: Callable[[], dict[str, Any]]) -> None:
        self.folder = folder
        self.config = config

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_of(pl_module)
        target = self.folder / "export"
        if not trainer.is_global_zero or target.exists():
            return
        checkpoints = self.folder / "checkpoints"
        best = checkpoint_io.Manifest.read(checkpoints).best
        if best is not None:
            put(module, checkpoint_io.load(checkpoints / best)["state_dict"])
        metrics = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        export_run(module, target, Facts(config=redacted(self.config()), metrics=metrics))


class VerifyMerge(RunCallback):
    """Merges what was exported and compares outputs; the figures go to `merge.json`.

    The second copy of the base stands in the host's memory. Where it would take more than half of that, nothing is compared, and the
    reason is said.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_of(pl_module)
        target = self.folder / "merge.json"
        if not trainer.is_global_zero or target.exists():
            return
        reason = _not_to_merge(module)
        if reason is not None:
            log.info("merge parity: not applicable, %s", reason)
            return
        log.info("merge parity: the base is read again, in its own type, into the host's memory")
        try:
            made = merged(module, short_sample(module, trainer.datamodule))  # type: ignore[attr-defined]
        except NotMergeableError as refusal:
            log.info("merge parity: not applicable, %s", refusal)
            return
        log.info("merge parity: %s", made.parity)
        write_json(target, made.parity.figures())
        if made.parity.holds:
            return
        kept = self.folder / "merged-differs"
        with published(kept) as work:
            save_whole(made.model, work)
        raise CheckpointError(f"the merged model is not the trained one: {made.parity}; it is kept in {kept}, the adapter in export/.")


def _not_to_merge(module: FinetuneModule) -> str | None:
    """Why there is nothing to compare."""
    name = type(module.tuning).__name__
    if type(module.tuning).merge is TuningStrategy.merge:
        return f"{name} has no merged form"
    if is_plain(module.adapted):
        return f"{name} trains the model's own weights"
    if base_is_lost(module):
        return "the base is random and is not stored"
    need = 4 * parameter_counts(module.adapted)[1]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > _SHARE * there:
        return f"a second copy of the base may take {need:,} bytes and the host has {there:,}; `ftlab export --merge` compares too"
    return None
