"""Runs under Lightning's trainer, each in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import torch

from ftlab.batch import Batch
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import alike, check, distance, require
from ftlab.testing.conformance.subject import EVEN, Subject, batch, descent, train
from ftlab.testing.conformance.tensors import few, snapshot, trainable


@check("base_untouched")
def float32(subject: Subject) -> None:
    """Under `32-true` everything trained and every logit is float32.

    An adapter made without a dtype takes the default of some other library, and the optimiser's small steps round to nothing.
    """
    server.call("precision", subject, {"precision": "32-true"})


@check("float32")
def bf16_mixed(subject: Subject) -> None:
    """Under `bf16-mixed` training works, and trained tensors stay float32.

    A product of a float32 adapter and a bfloat16 activation fails, or silently makes all that follows float32.
    """
    server.call("precision", subject, {"precision": "bf16-mixed"})


@check("float32")
def bf16_true(subject: Subject) -> None:
    """Under `bf16-true` training works.

    A buffer or constant that stays float32 meets bfloat16 weights in a matrix product.
    """
    server.call("precision", subject, {"precision": "bf16-true"})


@check("float32", "neighbours", "same_seed")
def step_hooks(subject: Subject) -> None:
    """`on_gradients` and `on_step` come once per optimiser step, and what happens in a step does not depend on its micro-batches.

    AdaLoRA's reallocation must be called by hand in PEFT; called per micro-batch, its schedule runs out in a fraction of the run.
    """
    server.call("hooks", subject)
    first, second = subject.module(), subject.module()
    whole = batch(first, EVEN)
    first.adapted.train()
    if distance(first.adapted(**whole.inputs).logits, first.adapted(**whole.inputs).logits) > 0:
        return  # dropout: halves of a batch draw other numbers than the whole
    first = subject.module()
    train(first, [whole] * 3, descent)
    train(second, [_halves(whole)] * 3, descent)
    expected, found = snapshot(first.adapted), snapshot(second.adapted)
    for name in trainable(first.adapted):
        alike(expected[name], found[name], 1e-4, f"two halves of a batch do not train '{name}' as the whole batch does")


def _halves(whole: Batch) -> list[Batch]:
    middle = len(whole.rows) // 2
    return [
        replace(
            whole,
            inputs={name: t[part] for name, t in whole.inputs.items()},
            labels={name: t[part] for name, t in whole.labels.items()},
            rows=whole.rows[part],
        )
        for part in (slice(None, middle), slice(middle, None))
    ]


@check("checkpoint_restores", "same_seed")
def resume(subject: Subject) -> None:
    """A run that is killed and resumed ends with the same bits as one that was not.

    A step counter, a schedule or an average in a Python attribute starts over, and the loss goes on as if nothing had happened.
    """
    whole, broken = server.call("fit", subject), server.call("fit", subject, {"kill_after": 2}, killed=True)
    server.call("fit", subject, {"kill_after": None}, folder=broken)
    expected, found = (torch.load(folder / "end.pt", weights_only=True) for folder in (whole, broken))
    for part in ("weights", "optimiser"):
        changed = {n for n, t in expected[part].items() if n not in found[part] or not torch.equal(t, found[part][n])}
        require(not changed, f"killed and resumed, the run ends with other {part}: {few(changed)}")
