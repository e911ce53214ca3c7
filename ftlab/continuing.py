"""What a run that goes on must share with the run as it was, beyond its model, and what follows where something may differ."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ftlab import checkpoint as ckpt
from ftlab import origins
from ftlab.errors import CheckpointError
from ftlab.resumed import advice

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch.optim import Optimizer

    from ftlab.optim.schedule import Schedule
    from ftlab.resumed import MayDiffer

log = logging.getLogger(__name__)

_POSITION = ("params", "lr")
"""What an optimiser's group holds that is no setting: `lr` is where the schedule has come to."""


def settings(trainer: Trainer, schedule: Schedule) -> dict[str, object]:
    """What decides a step beside model, task, strategy and rows, as plain values by key."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    seed = {"data.seed": data.seed} if data.seed is not None else {"seed_everything": int(os.environ.get("PL_GLOBAL_SEED", 0))}
    return {
        **{f"data.{name}": getattr(data, name) for name in ("batch_size", "group_by_length", "max_length")},
        **seed,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.limit_train_batches": trainer.limit_train_batches,
        "trainer.precision": str(trainer.precision),
        "trainer.gradient_clip_val": trainer.gradient_clip_val,
        "trainer.gradient_clip_algorithm": str(trainer.gradient_clip_algorithm),
        "model.schedule": ckpt.spec_of(schedule),
        "model.optimizer": [type(optimizer).__name__ for optimizer in trainer.optimizers],
    }


def prepare(checkpoint: dict[str, Any], trainer: Trainer, now: Mapping[str, object], may_differ: MayDiffer, new_rows: bool) -> None:
    """Check a checkpoint against the run that goes on from it, and set the loops where they go on.

    Args:
        checkpoint: What was loaded; its loops are changed where the data is another.
        trainer: The trainer, its data read.
        now: What `settings` says of this run.
        may_differ: What the user lets differ.
        new_rows: Whether the rows are others.

    Raises:
        CheckpointError: Something differs that must not.
    """
    stamp = checkpoint[ckpt.STAMP]
    ranks = len(stamp["rng"])
    if ranks != trainer.world_size:
        raise CheckpointError(
            f"the checkpoint was saved by {ranks} rank{'s' * (ranks > 1)}, this run has {trainer.world_size}: each rank has random "
            "state and a share of the rows of its own; set trainer.devices and trainer.num_nodes back, or start a new run."
        )
    changed = _changed(stamp["settings"], now, may_differ)
    if new_rows or any(key.startswith(("data.", "seed_everything", "trainer.limit_train_batches")) for key in changed):
        _begin_epoch_anew(checkpoint, _batches(trainer))
        what = "the rows" if new_rows else ", ".join(changed)
        log.warning(
            "%s changed: this run is not the one that was stopped, and the claim that it is exact is withdrawn; "
            "an epoch that was under way begins anew", what
        )  # fmt: skip
    versions = origins.table(stamp["packages"], origins.versions(origins.class_paths(stamp["spec"])))
    if versions:
        log.warning("versions changed, and the claim that the run goes on to the last bit is withdrawn:%s", versions)


def _changed(then: Mapping[str, object], now: Mapping[str, object], may_differ: MayDiffer) -> list[str]:
    """The keys that differ and may."""
    old_side, new_side = ({k: v for k, v in side.items() if k != "model.optimizer"} for side in (then, now))  # there is none yet
    found = list(ckpt.differences(old_side, new_side))
    for key, old, new in found:
        if not may_differ.allows(key):
            raise CheckpointError(f"the checkpoint has {key} {old!r}, this run {new!r}; {advice(key)}")
    return [key for key, _, _ in found]


def check_optimizer(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse another optimiser than the one whose state the checkpoint holds, which would win over what is configured.

    Args:
        checkpoint: What was loaded.
        optimizer: The configured one, with its schedule.

    Raises:
        CheckpointError: Another class, or a setting has another value.
    """
    (old,), new = checkpoint[ckpt.STAMP]["settings"]["model.optimizer"], type(optimizer).__name__
    if old != new:
        raise CheckpointError(f"the checkpoint has model.optimizer {old}, this run {new}; {advice('model.optimizer')}")
    groups = checkpoint["optimizer_states"][0]["param_groups"], optimizer.state_dict()["param_groups"]
    if len(groups[0]) != len(groups[1]):
        raise CheckpointError(f"the checkpoint's optimiser has {len(groups[0])} groups, this run's {len(groups[1])}; start a new run.")
    for key, then, now in _group_differences(*groups):
        raise CheckpointError(f"the checkpoint has model.optimizer.{key} {then!r}, this run {now!r}; {advice('model.optimizer')}")


def _group_differences(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, object, object]]:
    for first, second in zip(old, new, strict=True):
        for key in sorted({*first, *second} - {*_POSITION}):
            then, now = first.get(key), second.get(key)
            if (list(then) if isinstance(then, tuple) else then) != (list(now) if isinstance(now, tuple) else now):
                yield ("lr" if key == "initial_lr" else key), then, now


def _batches(trainer: Trainer) -> int:
    """Micro-batches of an epoch on one rank, as far as the trainer takes them."""
    batches = int(trainer.datamodule.train_batches())  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    return int(min(batches, limit) if isinstance(limit, int) else batches * limit)


def _begin_epoch_anew(checkpoint: dict[str, Any], batches: int) -> None:
    """Place the loops and the loader where the present epoch begins, or where it is over if it was."""
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    done = batches if progress["is_last_batch"] else 0
    # Lightning saves within a batch and counts it as completed when it goes on.
    progress["current"] = {"ready": done, "started": done, "processed": done, "completed": done - 1}
    loop["state_dict"]["combined_loader"] = [{"epoch": checkpoint["epoch"], "handed": done}]


def total_steps(trainer: Trainer, continued: Mapping[str, Any] | None) -> int:
    """Optimiser steps of the whole run.

    Taken from the data module, because reading `trainer.estimated_stepping_batches` builds the loaders anew.

    Args:
        trainer: The trainer, its data read.
        continued: The checkpoint that the run goes on from, if it does.
    """
    epoch = -(-_batches(trainer) // trainer.accumulate_grad_batches)
    epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else None
    beside = steps_beside(continued, trainer) if continued is not None else 0
    bounds = [b for b in (trainer.max_steps if trainer.max_steps > 0 else None, epoch * epochs + beside if epochs else None) if b]
    return max(1, min(bounds)) if bounds else epoch


def steps_beside(checkpoint: Mapping[str, Any], trainer: Trainer) -> int:
    """Optimiser steps that were done beyond those that epochs of the present length have, up to the place where the run goes on.

    It is 0 unless the length of an epoch changed, and what the end of the run is counted from where it did.
    """
    window = trainer.accumulate_grad_batches
    done = int(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"])
    epoch = -(-_batches(trainer) // window)
    return int(checkpoint["global_step"]) - int(checkpoint["epoch"]) * epoch - -(-done // window)
