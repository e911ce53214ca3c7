"""Steps that go through the whole model's `forward`, as sharded models need it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ftlab.module import FinetuneModule
from ftlab.optim.build import OptimizerCallable, build_optimizer
from ftlab.testing.conformance.subject import batch


def teach(module: FinetuneModule, optimizer: OptimizerCallable, steps: int = 2) -> None:
    """Some steps on one batch, with the hooks of a step.

    A language-model task calls the body below the head, which FSDP2's hooks do not see; here the loss is taken from the logits.
    """
    model, tuning = module.adapted.train(), module.tuning
    piece = batch(module)
    tuning.prepare(model, iter([piece]))
    made = build_optimizer(optimizer, tuning, model)
    for step in range(steps):
        found: Tensor = model(**piece.inputs).logits
        scores = found.flatten(0, -2)
        F.cross_entropy(scores, piece.inputs["input_ids"].reshape(-1)[: len(scores)] % scores.shape[-1]).backward()
        tuning.on_gradients(model, step)
        made.step()
        tuning.on_step(model, step + 1, steps)
        made.zero_grad()
