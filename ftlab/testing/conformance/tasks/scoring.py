"""The loss: a sum over what is scored, which depends on nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.utils.generic import find_labels

from ftlab.batch import Batch
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, require, task_check
from ftlab.testing.conformance.rows import ROUNDING
from ftlab.testing.conformance.tasks.subject import TaskSubject, outputs_of, widened
from ftlab.testing.models import CONTEXT

_WIDER = 7


@task_check("draws")
def counts(subject: TaskSubject) -> None:
    """Every head has a scalar sum in float32, and the number of scored positions that the labels alone give.

    A mean over other positions than were counted is off by their ratio, in every batch by another one.
    """
    for batch in (subject.whole(), *_singles(subject)):
        require(set(batch.labels) == set(subject.bound.heads), f"labels has {sorted(batch.labels)} for the heads {subject.bound.heads}")
        found = outputs_of(subject.bound, subject.model, batch)
        for head, number in batch.counts().items():
            total = found.sums[head]
            require(total.shape == () and total.dtype == torch.float32, f"the sum of '{head}' is {tuple(total.shape)} in {total.dtype}")
            require(bool(total.isfinite()), f"the sum of '{head}' is {float(total)}")
            told = float(found.counts[head])
            require(told == number, f"the loss counts {told:g} positions of '{head}', its labels {number}")
    for head, number in subject.whole().counts().items():
        require(number > 0, f"nothing of the sample rows is scored for '{head}'; add rows with labels")


def _singles(subject: TaskSubject) -> list[Batch]:
    return [subject.batch([i]) for i in range(len(subject.store))]


@task_check("counts")
def labels_apart(subject: TaskSubject) -> None:
    """No label enters the model.

    HF models then compute a loss of their own, a mean that is weighted wrongly, and hold all the logits for it.
    """
    with _called(subject.model) as seen:
        subject.sums(subject.whole())
        subject.bound.predict(subject.model, subject.whole())
    names = {name for module in subject.model.modules() for name in find_labels(type(module))} | {"labels", "label", "label_ids"}
    found = names & (seen | set(subject.whole().inputs))
    require(not found, f"the model is given {', '.join(sorted(found))}; labels belong in Batch.labels")


@contextmanager
def _called(model: nn.Module) -> Iterator[set[str]]:
    """The names of the arguments that any module is called with, other than None."""
    seen: set[str] = set()

    def note(module: nn.Module, args: object, given: Mapping[str, object]) -> None:
        seen.update(name for name, value in given.items() if value is not None)

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@task_check("labels_apart")
def padding(subject: TaskSubject) -> None:
    """Padding changes no loss and no prediction.

    Positions that are padding and are scored, pooled or attended to make a loss depend on the longest row of a batch.
    """
    filler, tried = int(subject.tokenizer.pad_token_id), False
    for number, batch in enumerate(_singles(subject)):
        columns = min(_WIDER, CONTEXT - batch.inputs["input_ids"].shape[-1])
        if columns:
            tried, wide = True, widened(batch, columns, filler)
            _same_sums(subject.sums(batch), subject.sums(wide), f"{columns} columns of padding change the loss of example {number}")
            (one,), (other,) = (subject.bound.predict(subject.model, b) for b in (batch, wide))
            require(alike_values(one, other), f"{columns} columns of padding change the prediction of example {number}")
    if not tried:
        raise NotApplicableError("every example is as long as the model allows")


@task_check("padding")
def neighbours(subject: TaskSubject) -> None:
    """A prediction is the same whatever stands beside it in the batch.

    Statistics over a batch make a prediction depend on who asks at the same time.
    """
    together = subject.bound.predict(subject.model, subject.whole())
    require(len(together) == len(subject.store), f"predict gives {len(together)} records for {len(subject.store)} examples")
    for number, batch in enumerate(_singles(subject)):
        (alone,) = subject.bound.predict(subject.model, batch)
        require(alike_values(alone, together[number]), f"alone, example {number} has another prediction: {alone!r:.80}")


@task_check("padding")
def split_batches(subject: TaskSubject) -> None:
    """The sums of the parts of a batch add up to the sum of the whole.

    Only then is the loss of a window that of its rows, however it is cut into micro-batches and ranks.
    """
    whole, middle = subject.sums(subject.whole()), len(subject.store) // 2
    halves = [subject.batch(range(middle)), subject.batch(range(middle, len(subject.store)))]
    for parts, what in ((_singles(subject), "of single examples"), (halves, "of two halves")):
        _same_sums(whole, _added([subject.sums(part) for part in parts]), f"the sums {what} are not that of the whole batch")


def _added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {head: sum(part[head] for part in parts) for head in parts[0]}


def _same_sums(expected: Mapping[str, float], found: Mapping[str, float], sentence: str) -> None:
    for head, total in expected.items():
        require(near(total, found[head]), f"{sentence}: '{head}' is {found[head]:.6g} instead of {total:.6g}")


@task_check("counts")
def unscored(subject: TaskSubject) -> None:
    """A batch in which nothing is scored has a loss of 0 that depends on the model, with a gradient of zeros.

    A rank without a row must still call backward, and the mean over nothing is NaN.
    """
    batch = subject.whole().unscored()
    found = outputs_of(subject.bound, subject.model, batch)
    for head, total in found.sums.items():
        require(float(total) == 0 and float(found.counts[head]) == 0, f"where nothing is scored, the sum of '{head}' is {float(total)}")
        require(total.requires_grad, f"where nothing is scored, the loss of '{head}' does not depend on the model")
    torch.stack(list(found.sums.values())).sum().backward()
    slopes = [p.grad for p in subject.model.parameters() if p.grad is not None]
    subject.model.zero_grad()
    require(bool(slopes), "where nothing is scored, no parameter gets a gradient")
    require(all(bool(s.eq(0).all()) for s in slopes), "where nothing is scored, the gradient is not zero")


@task_check("split_batches")
def hf_loss(subject: TaskSubject) -> None:
    """An example alone, which needs no padding, has the loss that the HF model itself computes from the labels.

    A shift by one, a sign or a forgotten position is a plausible number that falls in training as well.
    """
    names, heads = find_labels(type(subject.model)), subject.bound.heads
    if len(names) != len(heads):
        raise NotApplicableError(f"{type(subject.model).__name__} takes the labels {names}, the task has the heads {list(heads)}")
    singles = [b for b in _singles(subject) if all(b.counts().values())]
    if not singles:
        raise NotApplicableError("no example has something to score for every head")
    weights = subject.bound.weights()
    for number, batch in enumerate(singles):
        given = {name: batch.labels[head] for name, head in zip(names, heads, strict=True)}
        theirs = _asked(subject.model, {**batch.inputs, **given})
        ours = sum(weights[head] * total / batch.counts()[head] for head, total in subject.sums(batch).items())
        require(
            near(theirs, ours), f"the loss of example {number} is {ours:.6g}, and {theirs:.6g} by {type(subject.model).__name__} itself"
        )


@torch.no_grad()
def _asked(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    try:
        return float(model(**inputs).loss)
    except Exception as error:  # whatever a plugin raises is a finding
        raise BrokenError(f"{type(model).__name__} cannot be asked for its own loss with the task's labels ({error})") from error


@task_check("counts")
def precision(subject: TaskSubject) -> None:
    """Under `bf16-mixed` and over a base in bfloat16 the loss is finite, float32, and was added up in float32.

    A loss in bfloat16 has two digits: 10.75 for 11.148.
    """
    base = subject.module(backbone={"dtype": "bfloat16"}).adapted
    for model, mixed, where in ((subject.model, True, "under bf16-mixed"), (base, False, "over a base in bfloat16")):
        found: dict[str, list[torch.Tensor]] = {head: [] for head in subject.bound.heads}
        for batch in _singles(subject):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                for head, total in outputs_of(subject.bound, model, batch).sums.items():
                    found[head].append(total)
        for head, totals in found.items():
            require(all(t.dtype == torch.float32 for t in totals), f"{where} the sum of '{head}' is {totals[0].dtype}")
            require(all(bool(t.isfinite()) for t in totals), f"{where} the sum of '{head}' is not finite")
            short = all(float(t.bfloat16()) == float(t) for t in totals)
            require(short <= all(float(t) == 0 for t in totals), f"{where} the sum of '{head}' was rounded to bfloat16")


def near(expected: float, found: float) -> bool:
    """Whether two numbers are equal but for rounding; NaN is NaN."""
    if math.isnan(expected) or math.isnan(found):
        return math.isnan(expected) and math.isnan(found)
    return abs(expected - found) <= ROUNDING * max(abs(expected), abs(found), 1e-2)


def alike_values(first: object, second: object) -> bool:
    """Whether two predictions are equal but for the rounding of numbers inside them."""
    if isinstance(first, float) and isinstance(second, float):
        return near(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(alike_values(v, second[k]) for k, v in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(alike_values(a, b) for a, b in zip(first, second, strict=True))
    return first == second
