"""What training moves, and what it must leave alone."""

from __future__ import annotations

import torch

from ftlab.strategies.base import TuningStrategy
from ftlab.tasks.base import Task
from ftlab.testing.conformance.check import NotApplicableError, alike, check, require
from ftlab.testing.conformance.subject import PLAIN, RECOMPUTING, Build, Subject, batch, descent, loss_of, train
from ftlab.testing.conformance.tensors import few, moved, snapshot, trainable


@check("instances_apart")
def trains(subject: Subject) -> None:
    """Every trainable tensor gets a finite gradient and moves within three steps.

    A tensor outside the graph, or one cut off by a detach, is trained in name only.
    """
    learns(subject, subject.family)


def learns(subject: Subject, family: str, task: Task | None = None, build: Build = PLAIN) -> None:
    """Train three steps and require that every trainable tensor takes part."""
    module = subject.module(family, task, build=build)
    model = module.adapted
    names, before = trainable(model), snapshot(model)
    found = train(module, [subject.batch(module)] * 3)
    require(not found.bad, f"the gradient of {few(found.bad)} is not finite on {family}")
    require(names <= found.seen, f"no gradient reaches {few(names - found.seen)} on {family}")
    still = names - moved(before, model)
    require(not still, f"{few(still)} has a gradient and does not move on {family}")


@check("trains", "same_seed")
def trains_recomputing(subject: Subject) -> None:
    """With activation checkpointing the same tensors move to the same place.

    With PEFT and a frozen embedding, checkpointing left the adapters without any gradient; prefixes lose their cache under it.
    """
    learns(subject, subject.family, build=RECOMPUTING)
    ends = []
    for recomputing in (False, True):
        module = subject.module(build=RECOMPUTING if recomputing else PLAIN)
        train(module, [batch(module)] * 3, descent)
        ends.append(snapshot(module.adapted))
    for name in trainable(module.adapted):
        alike(ends[0][name], ends[1][name], 1e-4, f"with activation checkpointing '{name}' learns something else")


@check("trains")
def base_untouched(subject: Subject) -> None:
    """Nothing moves but what the strategy owns.

    A frozen weight that moves is in no checkpoint, so that the saved model is not the trained one.
    """
    module = subject.module()
    model = module.adapted
    before = snapshot(model)
    train(module, [batch(module)] * 3)
    stray = moved(before, model) - subject.strategy.owned(model)
    require(not stray, f"training changed {few(stray)}, which the strategy does not own")


@check("trains")
def extra_losses(subject: Subject) -> None:
    """Every extra loss term reaches the gradient.

    PEFT's KaSA and orthogonality terms are lost where a training loop does not ask for them; a detached one is logged and trains nothing.
    """
    if type(subject.strategy).extra_losses is TuningStrategy.extra_losses:
        raise NotApplicableError("the strategy has no extra losses")
    module = subject.trained(steps=2)
    model, piece = module.adapted.train(), batch(module)
    terms = subject.strategy.extra_losses(model, module.task.forward(model, piece), piece)
    if not terms:
        raise NotApplicableError("the strategy gives no extra losses")
    parameters = [p for p in model.parameters() if p.requires_grad]
    for name, term in terms.items():
        require(term.ndim == 0 and bool(term.isfinite()), f"the extra loss '{name}' is no finite scalar")
        require(term.requires_grad, f"the extra loss '{name}' is detached from the parameters")
        slopes = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        require(any(s is not None and bool(s.ne(0).any()) for s in slopes), f"the extra loss '{name}' has no gradient at any parameter")
    loss_of(module, piece).backward()
