"""When a run saves: at steps, by the clock, after each validation, and when a signal asks."""

from __future__ import annotations

import logging
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.progress import _ProcessedTracker

from ftlab import checkpoint_io as files
from ftlab.callbacks.jsonl import JsonLinesLogger
from ftlab.errors import ConfigError, StorageError
from ftlab.folders import try_writing
from ftlab.lean import RunCallback, module_of
from ftlab.ranks import on_rank_zero
from ftlab.signals import SignalFlag, StoppedError, leave_at_once

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """When checkpoints are saved and how many are kept.

    Args:
        every_n_steps: Save each time this many optimiser steps are done; null saves at the end of each epoch.
        every_minutes: Save when this much time has passed since the last one; null does not look at the clock.
        keep: How many of the newest to keep, beside the best one.
        on_error: What to do when a checkpoint cannot be written; stop the run, or continue and try at the next one.
        verify_merge: Merge at the end of a fit, in the host's memory, and compare with the trained model; nothing is written if they agree.
    """

    every_n_steps: int | None = None
    every_minutes: float | None = None
    keep: int = 2
    on_error: Literal["stop", "continue"] = "stop"
    verify_merge: bool = True

    def __post_init__(self) -> None:
        for key, value in (("every_n_steps", self.every_n_steps), ("every_minutes", self.every_minutes), ("keep", self.keep)):
            if value is not None and not value > 0:
                raise ConfigError(f"save.{key} is {value}; it must be above 0.")


class Checkpoints(RunCallback, Checkpoint):
    """Saves between optimiser steps only, so that a checkpoint never holds half a window.

    Args:
        folder: `checkpoints/` of the run.
        options: When.
    """

    def __init__(self, folder: Path, options: SaveOptions) -> None:
        self.folder = folder
        self.options = options
        self.signals = SignalFlag()
        self._saved_step = -1
        self._saved_at = files.now()
        self._due = False
        """Whether a validation follows the step."""
        self._began = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        leave_at_once()  # Lightning's handler would begin a collective in the middle of another one

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = True
        self._saved_step, self._saved_at = trainer.global_step, files.now()
        on_rank_zero(trainer, lambda: self._prepare(trainer, pl_module))
        self.signals.install()
        if self._due:
            self._validate(trainer)

    def catch_up(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin now, if the training did not."""
        if not self._began:
            self.on_train_start(trainer, pl_module)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try_writing(self.folder)
        self._check_space(pl_module)
        self._mend(trainer.global_step)

    def _validate(self, trainer: Trainer) -> None:
        """Run the validation that followed the checkpoint; where the run had logged it already, the record is written again."""
        for logger in trainer.loggers:
            if isinstance(logger, JsonLinesLogger):
                logger.forget_validation(trainer.global_step)
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True

    def state_dict(self) -> dict[str, Any]:
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._due = bool(state_dict["due"])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.remove()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        module = module_of(pl_module)
        if not module.window_ended(batch_idx):
            return
        number, late = self._agreed(trainer)
        every = self.options.every_n_steps
        at_step = trainer.is_last_batch if every is None else trainer.global_step % every == 0
        last = trainer.global_step >= module.total_steps
        if number or late or at_step or last:
            self._due = _validation_follows(trainer, batch_idx, last)
            self.save(trainer, needed=bool(number) or last)
        if number:
            raise StoppedError(number, trainer.global_step, str(self.folder.parent))

    def _agreed(self, trainer: Trainer) -> tuple[int, bool]:
        """The highest signal that any rank got, and whether rank 0's clock says it is time."""
        minutes = self.options.every_minutes
        late = minutes is not None and files.now() - self._saved_at >= 60 * minutes
        if trainer.world_size == 1:
            return self.signals.number, late
        flags = torch.tensor([self.signals.number, int(late and trainer.is_global_zero)], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        number, time_is_up = flags.tolist()
        return int(number), bool(time_is_up)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            on_rank_zero(trainer, lambda: self._note_best(trainer))

    def _note_best(self, trainer: Trainer) -> None:
        if "val_loss" not in trainer.callback_metrics or self._saved_step != trainer.global_step:
            return
        value = float(trainer.callback_metrics["val_loss"])
        manifest = files.Manifest.read(self.folder)
        if _name(self._saved_step) not in manifest.files:  # a run that goes on under a new id begins at a step of another folder
            return
        if not math.isfinite(value):
            log.warning("val_loss is %s at step %d, so this checkpoint cannot be the best", value, self._saved_step)
        if not math.isfinite(value) or (manifest.best_value is not None and manifest.best_value <= value):
            return
        former, manifest.best, manifest.best_value = manifest.best, _name(self._saved_step), value
        manifest.write(self.folder)
        _link(self.folder / "best.ckpt", manifest.best)
        if former:
            self._prune()

    def save(self, trainer: Trainer, needed: bool = False) -> None:
        """Save the present step unless that is done; all ranks must call this.

        Args:
            trainer: The trainer.
            needed: No further checkpoint follows, so that `on_error: continue` has nothing to go on with.
        """
        if self._saved_step == trainer.global_step:
            return
        _count_epoch(trainer)
        try:
            self._write(trainer, _name(trainer.global_step))
            self._saved_step, self._saved_at = trainer.global_step, files.now()
        except StorageError as error:
            if needed or self.options.on_error == "stop":
                raise
            log.warning("%s (save.on_error: continue)", error)

    def _write(self, trainer: Trainer, name: str) -> None:
        failed: list[StorageError] = []
        try:
            for logger in trainer.loggers:
                if isinstance(logger, JsonLinesLogger):
                    logger.sync()
            trainer.save_checkpoint(self.folder / name)
        except StorageError as error:
            failed.append(error)
            trainer.strategy.barrier()  # the other ranks wait in the one that Lightning did not come to

        def finish() -> None:
            if failed:
                raise failed[0]
            _link(self.folder / "last.ckpt", name)
            self._prune()

        on_rank_zero(trainer, finish)

    def _prune(self) -> None:
        manifest = files.Manifest.read(self.folder)
        spare = [n for n in manifest.newest_first()[self.options.keep :] if n != manifest.best]
        if not spare:
            return
        for name in spare:
            del manifest.files[name]
        manifest.write(self.folder)
        for name in spare:
            files.delete(self.folder / name)

    def _mend(self, step: int) -> None:
        """Do what a process that died between a checkpoint's manifest and its links has left: no further save may come."""
        manifest = files.Manifest.read(self.folder)
        if manifest.best in manifest.files:
            _link(self.folder / "best.ckpt", str(manifest.best))
        if manifest.newest_first()[:1] == [_name(step)]:  # else the newest is damaged, and nothing older may go yet
            _link(self.folder / "last.ckpt", _name(step))
            self._prune()

    def _check_space(self, pl_module: LightningModule) -> None:
        """Refuse to start where the checkpoints to keep would not fit."""
        module = module_of(pl_module)
        need = checkpoint_bytes(module) * (self.options.keep + 2)  # the best one, and the one being written
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise StorageError(
                f"{self.folder} has {free:,} bytes free, and {self.options.keep + 2} checkpoints need about {need:,}; "
                "free space, lower save.keep, or set run.root to another disk."
            )


class LastValidation(RunCallback):
    """Validates where a run goes on that has no step left: Lightning then leaves out `on_train_start` and all that follows.

    It stands before whatever writes results at the end of a fit; Lightning puts the checkpoints behind it.

    Args:
        checkpoints: What knows whether a validation is due.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.checkpoints.catch_up(trainer, pl_module)


def checkpoint_bytes(module: FinetuneModule) -> int:
    """About how large a checkpoint is: what is owned, and two moments for each trainable number."""
    state = module.adapted.state_dict()
    owned = sum(state[name].numel() * state[name].element_size() for name in module.tuning.owned(module.adapted))
    moments = sum(2 * p.numel() * p.element_size() for p in module.adapted.parameters() if p.requires_grad)
    return int(owned + moments)


def _validation_follows(trainer: Trainer, batch_idx: int, last: bool) -> bool:
    if not trainer.enable_validation:
        return False
    every = trainer.check_val_every_n_epoch
    if trainer.is_last_batch:
        return last or every is None or (trainer.current_epoch + 1) % every == 0
    interval = trainer.val_check_batch
    return last or (interval is not None and (batch_idx + 1) % interval == 0)


def _count_epoch(trainer: Trainer) -> None:
    """Say that the present epoch has begun, which Lightning forgets in a run that was resumed at the end of the one before.

    It would take the checkpoint for one between epochs, and neither the loader nor the loops would go on where they were.
    """
    progress = trainer.fit_loop.epoch_progress
    for count in (progress.current, progress.total):
        assert isinstance(count, _ProcessedTracker)
        count.ready = count.started = count.processed + 1
        count.completed = count.processed


def _name(step: int) -> str:
    return f"step-{step:08d}.ckpt"


def _link(path: Path, target: str) -> None:
    """Point a name at a checkpoint, for people; the run itself reads the manifest."""
    work = path.with_name(f".{path.name}.tmp")
    try:
        work.unlink(missing_ok=True)
        os.symlink(target, work)
        os.replace(work, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); mend the folder, then continue with --resume.") from error
