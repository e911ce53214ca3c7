"""The only LightningModule: a backbone, a task and a tuning strategy under Lightning's loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ftlab import checkpoint as ckpt
from ftlab import continuing, rehearsal, rng
from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.evaluation import Evaluation
from ftlab.fingerprints import base_fingerprint, check, tokenizer_fingerprint
from ftlab.growth import grow
from ftlab.half import converted
from ftlab.heads import fresh_modules
from ftlab.lean import LeanModule
from ftlab.metrics import MetricCallable, check_metrics
from ftlab.numerics import Guard, check_frozen, frozen_sums, gradient_norm
from ftlab.optim.build import OptimizerCallable, build_optimizer
from ftlab.optim.schedule import Schedule
from ftlab.quantised import quantised_names
from ftlab.resumed import MayDiffer
from ftlab.rows import Prediction
from ftlab.spikes import Spikes
from ftlab.step_log import StepLog
from ftlab.strategies.applied import applied
from ftlab.strategies.base import Placement, TuningStrategy
from ftlab.tasks.base import Task
from ftlab.window import Window

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class FinetuneModule(LeanModule):
    """A pretrained backbone, adapted by a strategy, on a task.

    Args:
        backbone: The pretrained model.
        task: What is learnt: columns, encoding, loss and metrics.
        tuning: How the backbone is adapted.
        optimizer: Any torch optimiser; null is fused AdamW with the strategy's own learning rate.
        schedule: Warm-up and decay of the learning rate, in optimiser steps.
        skip_nonfinite: Optimiser steps to leave out, because a loss or gradient is not finite, before the run ends.
        stop_at_spike: Whether a loss ten times the usual one ends the run, instead of a warning.
        metrics: Classes of torchmetrics to measure validation and test by, beside the task's own figures.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        tuning: TuningStrategy,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule = Schedule(),  # noqa: B008  # frozen, and shown as the default in --help
        skip_nonfinite: int = 0,
        stop_at_spike: bool = False,
        metrics: list[MetricCallable] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.task, self.tuning = backbone, task, tuning
        self.optimizer, self.schedule = optimizer, schedule
        if skip_nonfinite < 0:
            raise ConfigError(f"model.skip_nonfinite is {skip_nonfinite}; it must be 0 or more.")
        self.skip_nonfinite, self.stop_at_spike = skip_nonfinite, stop_at_spike
        self.metrics = metrics or []
        check_metrics(self.metrics, task)
        self.guard, self.spikes = Guard(skip_nonfinite, scaled=False), Spikes()
        self.strict_loading = False  # on_load_checkpoint checks more than torch would
        self.model: nn.Module | None = None
        self._window, self._rate = Window({}, torch.device("cpu")), 0.0
        self.total_steps = 0  # optimiser steps of the whole run, known when the optimiser is made
        self.frozen: dict[str, tuple[int, int]] = {}  # sums over every frozen tensor as the fit began
        self._rng: list[dict[str, Any]] | None = None  # what a checkpoint says of it, until the first batch after it
        self.may_differ = MayDiffer()
        self._continued: dict[str, Any] | None = None  # the checkpoint that a fit goes on from, until its optimiser is made
        self._base, self._validated_at = "", -1
        self._evaluation: Evaluation | None = None
        self.base_figures: dict[str, float] = {}  # validation of the untuned model, from Lightning's check before the fit

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer, loaded when first asked for: data needs it before there is a model."""
        return self.backbone.load_tokenizer()

    @cached_property
    def hf_config(self) -> PretrainedConfig:
        """The backbone's HF configuration, before the task changed it."""
        return self.backbone.load_config()

    @property
    def adapted(self) -> nn.Module:
        """What the strategy's `apply` returned."""
        if self.model is None:
            raise RuntimeError("the model is built by configure_model, which has not run yet")
        return self.model

    def spec(self) -> dict[str, object]:
        """What a checkpoint must agree with, as plain types."""
        parts = {"model.backbone": self.backbone, "model.task": self.task, "model.tuning": self.tuning}
        return {key: ckpt.spec_of(part) for key, part in parts.items()}

    def configure_callbacks(self) -> list[Callback]:
        return [StepLog()]

    def rehearse(self) -> None:
        """Refuse what the architecture alone forbids, before there are tokens or weights; nothing is left behind."""
        rehearsal.rehearse(self)

    def configure_model(self) -> None:
        """Load the backbone and apply the strategy; Lightning calls this again before every validate or test."""
        if self.model is not None:
            return
        precision = str(self.trainer.precision) if self._trainer else "32-true"
        device = self.trainer.strategy.root_device if self._trainer else torch.device("cpu")
        options = self.tuning.load_options(Placement(device=device, precision=precision))
        model, missing = self.backbone.load_model(self.task.auto_class, self.task.model_options(), options)
        self._base = base_fingerprint(model.state_dict(), missing | quantised_names(model))
        model.config.pad_token_id = self.tokenizer.pad_token_id
        heads = fresh_modules(model, missing, self.backbone) | grow(model, self.backbone, self.tokenizer)
        self.task.check(model)
        # Lightning converts it too, but only after a checkpoint's tensors have been compared with the model's.
        self.model = converted(applied(self.tuning.bind(self.tokenizer), model, heads).train(), precision)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        if self.trainer.ckpt_path is None:
            self.tuning.prepare(self.adapted, self._first_batches())
        optimizer = build_optimizer(self.optimizer, self.tuning, self.adapted)
        self.total_steps = continuing.total_steps(self.trainer, self._continued)
        scheduler = self.schedule.build(optimizer, self.total_steps)
        if self._continued is not None:
            continuing.check_optimizer(self._continued, optimizer)
            self._continued = None
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _first_batches(self) -> Iterator[Batch]:
        """The batches of the first epoch, on this rank's device; nothing is read unless a strategy asks."""
        for batch in self.trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]  # Lightning adds it
            yield batch.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if batch.window:
            several = self.trainer.world_size > 1
            self._window = Window(batch.window, self.device, self._sum_ranks if several else None)
            self.guard.begin()
        self.guard.rows.append(batch.rows)
        outputs = self.task.forward(self.adapted, batch)
        loss = self._window.loss(outputs, self.task.weights())
        for name, term in self.tuning.extra_losses(self.adapted, outputs, batch).items():
            share = term * self._window.part(outputs)
            self._window.note(f"train_{name}", share)
            loss = loss + share
        self._window.note("train_loss", loss)
        # Lightning divides by the window's nominal length and DDP by the number of ranks; the share is already exact.
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size
        if scale == 1 and not self.guard.scaled:
            return loss
        # A loss that is not finite while its gradient is becomes NaN in the gradient too, where every rank and fp16's scaler see it.
        return loss * (scale + 0 * loss.detach())

    def _sum_ranks(self, value: Tensor) -> Tensor:
        reduced = self.trainer.strategy.reduce(value, reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._rate = float(optimizer.param_groups[0]["lr"])
        self.tuning.on_gradients(self.adapted, self.global_step)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Judge the gradient, then clip it; a window in which nothing is scored takes no step on any rank."""
        loss = self._window.figures["train_loss"]
        norm = gradient_norm(optimizer, loss if self.trainer.world_size == 1 else None)  # that of several ranks is in the gradient
        self.spikes.add(loss, self.global_step)
        if not self._window.scored or not self.guard.judge(norm, self.global_step):
            optimizer.zero_grad(set_to_none=True)  # without gradients an optimiser changes nothing, decay and moments included
        elif gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        self.guard = Guard(self.skip_nonfinite, scaled=str(self.trainer.precision).startswith("16"))
        self.spikes = Spikes(self.stop_at_spike)
        self.frozen = frozen_sums(self.adapted.named_parameters())

    def on_train_start(self) -> None:
        """Take the learning rate from this run's schedule: a run that goes on beyond its old end has stored the rate of that one."""
        (scheduled,) = self.trainer.lr_scheduler_configs
        self.schedule.set_rates(scheduled.scheduler, self.total_steps)
        self.trainer.optimizers[0].zero_grad()  # what `prepare` may have left

    def on_train_end(self) -> None:  # before callbacks write that the run is complete
        self.guard.settle()
        check_frozen(self.frozen, self.adapted.named_parameters())

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.tuning.on_step(self.adapted, self.global_step + 1, self.total_steps)  # counted when this hook has returned
        optimizer.optimizer.zero_grad()  # Lightning keeps the gradients through the next forward pass, whose activations need the room

    def window_figures(self) -> dict[str, float]:
        """Loss terms of the last window over all ranks, and the learning rate it was taken with."""
        self.spikes.report(self._sum_ranks)
        return {**{name: float(self._sum_ranks(value)) for name, value in self._window.figures.items()}, "lr": self._rate}

    def on_train_epoch_end(self) -> None:
        """Validate what the run ends with, which Lightning leaves out when `max_steps` falls inside an epoch."""
        trainer = self.trainer
        last = 0 < trainer.max_steps <= self.global_step
        if not last or self._validated_at == self.global_step or not trainer.enable_validation:
            return
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True

    def window_ended(self, batch_idx: int) -> bool:
        """Whether an optimiser step came after this micro-batch."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch

    def on_validation_epoch_start(self) -> None:
        self._evaluation = Evaluation(self.task, self.device, self.metrics)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self._evaluation is not None
        self._evaluation.add(self.task.forward(self.adapted, batch), batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._report("val", {f"tuning/{name}": value for name, value in self.tuning.metrics(self.adapted).items()})

    def on_test_epoch_end(self) -> None:
        self._report("test", {})

    def _report(self, prefix: str, extra: dict[str, float]) -> None:
        assert self._evaluation is not None
        figures = self._evaluation.result(self._sum_ranks, partial(self.trainer.datamodule.rows, prefix))  # type: ignore[attr-defined]  # Lightning adds it
        self._evaluation = None
        if self.trainer.sanity_checking:
            self.base_figures = figures
            return
        self._validated_at = self.global_step
        self.log("step", float(self.global_step))  # what loggers call the step; Lightning's own count is one behind
        self.log_dict({**{f"{prefix}_{name}": value for name, value in figures.items()}, **extra}, rank_zero_only=False, sync_dist=False)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        records = self.task.predict(self.adapted, batch)
        return [{"row": row, **record} for row, record in zip(batch.rows.tolist(), records, strict=True) if row >= 0]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.settle()
        owned = self._owned()
        checkpoint["state_dict"] = ckpt.keep_owned(checkpoint["state_dict"], owned)
        run = {"fingerprints": self.fingerprints(), "rng": rng.states(), "base_figures": self.base_figures}
        run["settings"] = continuing.settings(self.trainer, self.schedule) if self._trainer is not None else {}
        checkpoint[ckpt.STAMP] = {**ckpt.stamp(self.spec(), owned), **run}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        free = [] if self._fitting else [f"model.task.{name}" for name in self.task.free]
        ckpt.verify(checkpoint, self.spec(), ckpt.keep_owned(self.state_dict(), self._owned()), free)
        new_rows = check(checkpoint[ckpt.STAMP]["fingerprints"], self.fingerprints(), self.may_differ.data)
        if self._fitting:
            continuing.prepare(checkpoint, self.trainer, continuing.settings(self.trainer, self.schedule), self.may_differ, new_rows)
            self._continued = checkpoint
        self._rng = checkpoint[ckpt.STAMP]["rng"]
        self.base_figures = checkpoint[ckpt.STAMP]["base_figures"]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self._rng is not None:
            rng.restore(self._rng, self.global_rank)
            self._rng = None

    @property
    def _fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == "fit"

    def fingerprints(self) -> dict[str, str]:
        """What the run stands on: `base`, `tokenizer` and, in a fit, `data`, each a hash of its content."""
        rows = {"data": self.trainer.datamodule.fingerprints["train"]} if self._fitting else {}  # type: ignore[attr-defined]  # Lightning adds it
        return {"base": self._base, "tokenizer": tokenizer_fingerprint(self.tokenizer), **rows}

    def _owned(self) -> frozenset[str]:
        return frozenset(f"model.{name}" for name in self.tuning.owned(self.adapted))
