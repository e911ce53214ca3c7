"""Whether a run learns what its strategy says, judged after its first steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ftlab.batch import IGNORE, Batch
from ftlab.errors import NumericsError
from ftlab.lean import RunCallback, module_of
from ftlab.numerics import frozen_sums, tensor_sums

if TYPE_CHECKING:
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

STEPS = 3
"""Optimiser steps before the verdict: LoRA's A has its first gradient in the second, because B begins at zero."""
_LEAST_SCORED = 0.01

Policy = Literal["stop", "warn", "off"]


@dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    Args:
        check: What was looked at.
        names: The tensors or modules at fault; empty where all is well.
        fatal: Whether a fault makes the run worthless.
        note: What was seen.
    """

    check: str
    names: tuple[str, ...] = ()
    fatal: bool = False
    note: str = ""

    def __str__(self) -> str:
        shown = ", ".join(self.names[:3]) + (f" and {len(self.names) - 3} more" if len(self.names) > 3 else "")
        return f"{self.check}: {shown or self.note}"


class LearningGuard(RunCallback):
    """After three optimiser steps: every trainable tensor had a gradient and moved, nothing else did, and the data makes sense.

    A frozen tensor that moves ends the run, and so does it where most trainable tensors have no gradient: a few have none where the
    task leaves a part of the model unused, such as a pooler. What may be meant is a warning.

    Args:
        policy: `stop` ends the run at a fatal finding, `warn` only says it, `off` looks at nothing.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._last = -1
        """The step after which the verdict falls; -1 where none is due."""
        self._before: dict[str, tuple[int, int]] = {}
        self._norms: dict[str, Tensor] = {}
        self._resting: tuple[str, ...] = ()
        self._tokens = 0
        self._scored = 0
        self._stop_tokens = [0, 0]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_of(pl_module)
        if self.policy == "off":
            return
        self._last = min(trainer.global_step + STEPS, max(module.total_steps, 1))
        self._before = {name: tensor_sums(p.detach()) for name, p in module.adapted.named_parameters() if p.requires_grad}
        self._norms = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if self._last < 0:
            return
        module = module_of(pl_module)
        self._resting = tuple(name or "the model" for name, m in module.adapted.named_modules() if not m.training)
        self._tokens += batch.tokens
        self._scored += max(batch.counts().values(), default=0)
        self._count_stop_tokens(batch, module.tokenizer.eos_token_id)

    def _count_stop_tokens(self, batch: Batch, stop: int | None) -> None:
        """How often the stop token stands in the rows, and how often it is scored; only where labels are tokens."""
        ids = batch.inputs.get("input_ids")
        for labels in batch.labels.values():
            if stop is not None and ids is not None and labels.shape == ids.shape and bool((labels == ids)[labels != IGNORE].all()):
                self._stop_tokens[0] += int((ids[:, 1:] == stop).sum())
                self._stop_tokens[1] += int((labels == stop).sum())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer) -> None:
        if self._last < 0:
            return
        module = module_of(pl_module)
        for name, parameter in module.adapted.named_parameters():
            if parameter.requires_grad and parameter.grad is not None:
                norm = parameter.grad.detach().float().norm()
                self._norms[name] = torch.maximum(self._norms[name], norm) if name in self._norms else norm

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if 0 <= self._last <= trainer.global_step:
            self._judge(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._last >= 0 and self._norms:
            self._judge(trainer, pl_module)

    def _judge(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = -1
        findings = list(self._findings(pl_module))  # type: ignore[arg-type]
        self._before, self._norms = {}, {}
        if trainer.is_global_zero:
            Console(stderr=True).print(table(findings))
        wrong = [f for f in findings if f.names or f.note]
        fatal = [f for f in wrong if f.fatal]
        for finding in wrong:
            if finding not in fatal or self.policy == "warn":
                log.warning("learning guard: %s", finding)
        if fatal and self.policy == "stop":
            raise NumericsError(f"{fatal[0]}; mend the strategy or the configuration, or set run.learning_guard to warn.")

    def _findings(self, module: FinetuneModule) -> Iterator[Finding]:
        norms = {name: float(norm) for name, norm in self._norms.items()}
        now = {name: tensor_sums(p.detach()) for name, p in module.adapted.named_parameters() if name in self._before}
        moved = {name for name, sums in self._before.items() if now.get(name) != sums}
        frozen = frozen_sums(module.adapted.named_parameters())
        trainable = self._before.keys()
        without = tuple(sorted(trainable - norms.keys()))
        yield Finding("trainable, but without a gradient", without, fatal=2 * len(without) > len(trainable))
        yield Finding("trainable, but its gradient is zero", tuple(sorted(n for n, norm in norms.items() if norm == 0)))
        yield Finding("trainable, but it does not move", tuple(sorted((trainable & norms.keys()) - moved - _still(norms))))
        changed = tuple(sorted(name for name, sums in module.frozen.items() if frozen.get(name) != sums))
        yield Finding("frozen, but it moves", changed, fatal=True)
        yield Finding("in evaluation mode", self._resting)
        share = self._scored / max(self._tokens, 1)
        word = module.task.heads[0] in ("lm", "mlm")
        yield Finding("scored tokens", note=f"only {share:.2%} of the tokens are scored" if word and share < _LEAST_SCORED else "")
        there, scored = self._stop_tokens
        yield Finding("stop token", note=f"it stands {there} times in the rows and is never scored" if there and not scored else "")


def _still(norms: dict[str, float]) -> set[str]:
    return {name for name, norm in norms.items() if norm == 0}


def table(findings: list[Finding]) -> Table:
    """The verdict, one line per check."""
    shown = Table(title="learning guard", title_justify="left")
    shown.add_column("check")
    shown.add_column("found")
    for finding in findings:
        shown.add_row(finding.check, str(finding).partition(": ")[2] or "nothing")
    return shown
