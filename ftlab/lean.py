"""Less work around a step of Lightning's loop, which enters a hundred contexts, calls every hook of every callback and notes each one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.profilers import PassThroughProfiler

from ftlab.batch import Batch

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

_NOTHING: AbstractContextManager[None] = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing; Lightning's own does so as well, and takes a microsecond at each of the hundred places of a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        return _NOTHING


class LeanModule(LightningModule):
    """A module that notes the running hook as a plain attribute and moves batches without asking who else may want to.

    Lightning notes the hook some 46 times in a step, and torch looks for parameters in whatever is set; for each batch it asks four
    times whether the module or the data module has a hook of its own.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        return batch

    def _apply_batch_transfer_handler(self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0) -> Batch:
        return batch.to(device or self.device)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: the gradients went as soon as the last step was taken."""


def module_of(pl_module: LightningModule) -> FinetuneModule:
    """The module that a callback was given; Lightning knows it by the class above."""
    return cast("FinetuneModule", pl_module)


class RunCallback(Callback):
    """A callback that has those of a step's hooks alone which its class defines.

    Lightning calls every hook of every callback; in a short step, calls to nothing are a noticeable part.
    """


_STEP = ("train_batch_start", "train_batch_end", "before_zero_grad", "before_backward", "after_backward", "before_optimizer_step")
for _hook in _STEP:
    setattr(RunCallback, f"on_{_hook}", None)  # Lightning leaves out what cannot be called
