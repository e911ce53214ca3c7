"""What ranks do together, so that none of them waits for one that has failed."""

from __future__ import annotations

import gc
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ftlab.errors import FtlabError, StorageError

_PATIENCE = 5.0
"""Seconds that the other ranks have to end by themselves, where they know why."""


def on_rank_zero(trainer: Trainer, action: Callable[[], object]) -> None:
    """Write something on rank 0; all ranks must call this.

    Args:
        trainer: The trainer.
        action: What rank 0 does; no other rank takes part.

    Raises:
        StorageError: It could not; raised by all ranks, which would otherwise wait for rank 0 in their next collective.
    """
    said = ""
    if trainer.is_global_zero:
        try:
            action()
        except StorageError as error:
            said = str(error)
    said = trainer.strategy.broadcast(said)
    if said:
        fault = StorageError(said)
        fault.on_all_ranks = True
        raise fault


def end_ranks(trainer: Trainer, error: BaseException) -> None:
    """End the ranks that this process has started, when it fails itself.

    They may wait for it in a collective for half an hour. Lightning's own observer would kill this process, exit code and all, as soon
    as it sees one of them end with an error; it looks at the same list.

    Args:
        trainer: The trainer.
        error: Why this process ends; where all ranks have raised it, the others are given time to end by themselves.
    """
    patience = _PATIENCE if isinstance(error, FtlabError) and error.on_all_ranks else 0.0
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    started, launcher.procs[:] = list(launcher.procs), []
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def leave_group() -> bool:
    """Leave the process group while Python still runs, if there is one; Lightning does so for NCCL alone.

    Gloo's threads let go of a finished collective after its caller has gone on, and need Python to free its tensors. Where the
    interpreter has ended by then, torch 2.13 aborts the process, exit code and all (pytorch/pytorch#179291, #190489). With the last
    reference to the group its threads are joined, and the trainer, which is garbage now, holds one.

    Returns:
        False where a collective is still open after `_PATIENCE`: this rank fails alone, and the others will never take part in it. The
        interpreter must not end then.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return True
    leaver = threading.Thread(target=_destroy, name="leave_group", daemon=True)
    leaver.start()
    leaver.join(_PATIENCE)
    return not leaver.is_alive()


def _destroy() -> None:
    dist.destroy_process_group()
    gc.collect()
