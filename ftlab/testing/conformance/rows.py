"""What a row gets depends on that row alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ftlab.testing.conformance.check import alike, check, distance
from ftlab.testing.conformance.subject import EVEN, TEXTS, Subject, batch
from ftlab.testing.conformance.tensors import logits

ROUNDING = 1e-4
"""Of the largest logit: wider rows are added up in another order, and rotary positions are shifted."""


@check("trains")
def padding(subject: Subject) -> None:
    """A row's logits are the same with padding on either side of it, as far as the base's own are.

    PEFT's prompts stand between the padding and the text, where left-padded rows see them at other positions.
    """
    module = subject.trained()
    base = subject.base(module)
    for text in TEXTS[:3]:
        inputs = batch(module, [text]).inputs
        for left, right in ((0, 7), (7, 0)):
            wide = widened(inputs, left, right, int(module.tokenizer.pad_token_id))
            if distance(logits(base, inputs), logits(base, wide)) > ROUNDING:
                continue  # absolute positions count the padding
            side = f"{left} columns of padding on the left" if left else f"{right} columns of padding on the right"
            alike(logits(module.adapted, inputs), logits(module.adapted, wide), ROUNDING, f"{side} change a row's logits")


def widened(inputs: Mapping[str, Tensor], left: int, right: int, filler: int) -> dict[str, Tensor]:
    """Inputs with further columns of padding."""
    return {name: nn.functional.pad(t, (left, right), value=filler if name == "input_ids" else 0) for name, t in inputs.items()}


@check("trains")
def neighbours(subject: Subject) -> None:
    """A row's logits are the same whatever stands beside it in the batch, in training and in evaluation.

    Statistics over a batch make an accuracy depend on the batch size, and a prediction on who asks at the same time.
    """
    module = subject.trained()
    model = module.adapted
    pair, other, alone = (batch(module, texts).inputs for texts in (EVEN[:2], (EVEN[0], EVEN[2]), EVEN[:1]))
    expected = model.eval()(**pair).logits[0]
    alike(expected, model(**other).logits[0], ROUNDING, "another row in the batch changes a row's logits")
    alike(expected, model(**alone).logits[0], ROUNDING, "a row alone has other logits than in a batch")
    found = []
    for inputs in (pair, other):
        torch.manual_seed(0)  # the same dropout
        found.append(model.train()(**inputs).logits[0])
    alike(found[0], found[1], ROUNDING, "another row in the batch changes a row's logits in training mode")
