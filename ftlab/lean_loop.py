"""Lightning's loop over the batches of an epoch, in a straight line for the one kind of module that ftlab has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.loops.utilities import _block_parallel_sync_behavior
from torch import Tensor

from ftlab.batch import Batch

_HOOKS = ("on_train_batch_start", "on_before_zero_grad", "on_train_batch_end")


class LeanEpochLoop(_TrainingEpochLoop):
    """Does at each batch what its parent does for automatic optimisation with one optimiser, in the same order and with the same counters.

    The parent asks every callback for every hook, wraps a step in three closures, and gathers logged metrics where there are none;
    in a short step that takes as long as a layer. The first batch after a checkpoint was loaded is the parent's.
    """

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._hooks = {name: [hook for c in self.trainer.callbacks if (hook := _own(c, name))] for name in _HOOKS}

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        trainer, progress = self.trainer, self.batch_progress
        if trainer.world_size > 1:
            self._broadcast_sigterm_tensor()
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        self._call("on_train_batch_start", batch, index)
        trainer.lightning_module.on_train_batch_start(batch, index)
        trainer.strategy.on_train_batch_start(batch, index)
        progress.increment_started()
        outputs = self._step(batch, index)
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        self._call("on_train_batch_end", outputs, batch, index)
        logged = bool(self._results)
        if logged:  # by somebody's callback
            trainer._logger_connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if logged:
            trainer._logger_connector.update_train_step_metrics()

    def _step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """Train on a micro-batch, and take the optimiser's step where it ends a window."""
        trainer = self.trainer
        closure = _Closure(self, batch, index)
        if self._should_accumulate():
            with _block_parallel_sync_behavior(trainer.strategy, block=True):
                closure()
        else:
            taken = self.automatic_optimization.optim_progress.optimizer.step
            taken.increment_ready()
            trainer.lightning_module.optimizer_step(trainer.current_epoch, index, trainer.strategy._lightning_optimizers[0], closure)
            taken.increment_completed()
        assert closure.loss is not None
        return {"loss": closure.loss}

    def _call(self, name: str, *args: Any) -> None:
        trainer = self.trainer
        module = trainer.lightning_module
        module._current_fx_name = name  # what a callback's `log` is filed under
        for hook in self._hooks[name]:
            hook(trainer, module, *args)
        module._current_fx_name = None


class _Closure:
    """Forward and backward pass of a micro-batch; what an optimiser is given to call."""

    def __init__(self, loop: LeanEpochLoop, batch: Batch, index: int) -> None:
        self._loop, self._batch, self._index = loop, batch, index
        self.loss: Tensor | None = None

    def __call__(self) -> Tensor:
        loop = self._loop
        trainer, cleared = loop.trainer, loop.automatic_optimization.optim_progress.optimizer.zero_grad
        window = trainer.accumulate_grad_batches
        with torch.enable_grad():
            loss = trainer.strategy.training_step(self._batch, self._index)
            assert isinstance(loss, Tensor)
            loss = loss if window == 1 else loss / window
            if self._index % window == 0:
                cleared.increment_ready()
                loop._call("on_before_zero_grad", trainer.optimizers[0])
                cleared.increment_started()
                cleared.increment_completed()  # the module clears the gradients as soon as a step is taken
            trainer.strategy.backward(loss, trainer.optimizers[0])
        self.loss = loss.detach()
        return self.loss


def _own(callback: Callback, name: str) -> Callable[..., None] | None:
    """A callback's hook, if it is more than the empty one of its base class."""
    hook = getattr(callback, name)
    return hook if callable(hook) and getattr(hook, "__func__", hook) is not getattr(Callback, name) else None


def go_lean(trainer: Trainer) -> None:
    """Give a trainer the lean loop, unless its strategy counts accumulated batches itself."""
    loop = trainer.fit_loop.epoch_loop
    if not trainer.strategy.handles_gradient_accumulation:
        trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, loop.min_steps, loop.max_steps)
