"""Other models than the first one: layers of other kinds, tasks, compiled and quantised."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.parity import REARRANGED
from ftlab.strategies.base import Placement
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.base import Task
from ftlab.testing.conformance.applying import target_fields
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, alike, check, require
from ftlab.testing.conformance.learning import learns
from ftlab.testing.conformance.rows import ROUNDING, widened
from ftlab.testing.conformance.storing import exported
from ftlab.testing.conformance.subject import CLASSES, LANGUAGE, Subject, batch, loss_of, train
from ftlab.testing.conformance.tensors import few, logits, moved, snapshot, trainable
from ftlab.testing.models import DECODERS


def works(subject: Subject, family: str, task: Task | None = None) -> None:
    """On another model everything trainable learns, and nothing else moves."""
    learns(subject, family, task=task)
    module = subject.module(family, task)
    before = snapshot(module.adapted)
    train(module, [subject.batch(module)] * 2)
    stray = moved(before, module.adapted) - subject.strategy.owned(module.adapted)
    require(not stray, f"on {family} training changed {few(stray)}, which the strategy does not own")


def merged_there(subject: Subject, family: str, task: Task | None = None) -> None:
    """Merged into another model, the outputs are the same."""
    if not subject.merges:
        return
    module = subject.trained(family, task)
    if subject.quantised:  # the export knows what merging into packed weights may change
        with tempfile.TemporaryDirectory(dir=subject.root) as work:
            exported(module, Path(work) / "merged", merge=True, inputs=subject.batch(module).inputs)
    elif subject.rows:
        piece = subject.batch(module)
        expected = _sums(module.task, module.adapted, piece)
        merged = subject.strategy.merge(module.adapted)
        alike(expected, _sums(module.task, merged, piece), REARRANGED, f"merged into {family}, the model has another loss")
    else:
        inputs = batch(module).inputs
        expected = logits(module.adapted, inputs)
        alike(expected, logits(subject.strategy.merge(module.adapted), inputs), REARRANGED, f"merged into {family}, the model is another")


@torch.no_grad()
def _sums(task: Task, model: nn.Module, piece: Batch) -> Tensor:
    """The sum of each head's loss."""
    return torch.stack([*task.forward(model.eval(), piece).sums.values()])


def _works_or_is_refused(subject: Subject, family: str) -> None:
    try:
        subject.module(family)
    except ConfigError:
        return
    works(subject, family)
    merged_there(subject, family)


@check("base_untouched", beside=("merges",))
def conv1d(subject: Subject) -> None:
    """GPT-2's `Conv1D`, whose weight lies the other way round, works or is refused.

    Adapters made for `nn.Linear` merged into it the wrong way, or passed it over in silence.
    """
    _works_or_is_refused(subject, "gpt2")


@check("base_untouched", beside=("merges",))
def biasless(subject: Subject) -> None:
    """A model without biases works or is refused.

    Tuning biases that do not exist trains nothing, and ends with the base's own score.
    """
    _works_or_is_refused(subject, "llama")


@check("base_untouched", beside=("merges",))
def embedding_targets(subject: Subject) -> None:
    """An embedding named as a target works or is refused.

    An adapter for a linear map multiplies where an embedding looks up.
    """
    fields = [name for name, wrong in target_fields(subject) if wrong and isinstance(wrong, list) and isinstance(wrong[0], str)]
    if not fields:
        raise NotApplicableError("no field names modules")
    base = subject.base(subject.module())
    leaf = next(name for name, m in base.named_modules() if isinstance(m, nn.Embedding)).rpartition(".")[2]
    for name in fields:
        try:
            other = subject.but({name: [leaf]})
            other.module(subject.family)
        except ConfigError:
            continue
        works(other, subject.family)
        merged_there(other, subject.family)


@check("base_untouched")
def causal(subject: Subject) -> None:
    """Language modelling with a decoder works, and logits line up with `input_ids`.

    Virtual tokens that stay in the output shift every label by their number.
    """
    family = subject.family if subject.family in DECODERS else "llama"
    works(subject, family, LANGUAGE)
    module = subject.trained(family, LANGUAGE)
    inputs = batch(module).inputs
    rows, tokens = inputs["input_ids"].shape
    found: Tensor = module.adapted.eval()(**inputs).logits
    require(found.shape[:2] == (rows, tokens), f"logits are {tuple(found.shape)} for input_ids of {(rows, tokens)}")
    later = {**inputs, "input_ids": torch.cat([inputs["input_ids"][:, :-1], inputs["input_ids"][:, :1]], dim=1)}
    changed: Tensor = module.adapted(**later).logits
    alike(found[:, :-1], changed[:, :-1], ROUNDING, "the last token changes the logits before it")


@check("heads")
def encoder(subject: Subject) -> None:
    """Classification with an encoder works.

    Methods written for decoders look for layers by names that encoders do not have.
    """
    works(subject, "bert", CLASSES)


@check("heads", "padding")
def classification(subject: Subject) -> None:
    """Classification with a decoder works, also where rows are padded.

    The class is read at a row's last token; a prompt that makes rows longer moves it, and PEFT's then needs right padding.
    """
    family = subject.family if subject.family in DECODERS else "llama"
    works(subject, family, CLASSES)
    module = subject.trained(family, CLASSES)
    inputs = batch(module, ["one two three"]).inputs
    wide = widened(inputs, 0, 6, int(module.tokenizer.pad_token_id))
    alike(logits(module.adapted, inputs), logits(module.adapted, wide), ROUNDING, "padding changes the class of a row")


@check("trains", "same_seed")
def compiles(subject: Subject) -> None:
    """A compiled model has the same logits and gradients, or the strategy declares that it cannot be compiled.

    What a method decides in Python is decided once, while compiling, for all later inputs.
    """
    found = []
    for compiled in (False, True):
        module = subject.module()
        train(module, [batch(module)])
        if compiled:
            # aot_eager traces forward and backward as inductor does, and needs no C++ compiler.
            module.adapted.compile(backend="aot_eager")
        outputs = module.adapted(**batch(module).inputs).logits.float()
        outputs.logsumexp(-1).mean().backward()
        found.append((outputs.detach(), {n: p.grad for n, p in module.adapted.named_parameters() if p.grad is not None}))
    torch.compiler.reset()
    (eager, slopes), (other, compiled_slopes) = found
    alike(eager, other, ROUNDING, "the compiled model has other logits")
    require(slopes.keys() == compiled_slopes.keys(), f"compiled, {few(slopes.keys() ^ compiled_slopes.keys())} has another gradient")
    for name, slope in slopes.items():
        alike(slope, compiled_slopes[name], 1e-3, f"compiled, '{name}' has another gradient")


@check("base_untouched")
def quantised_base(subject: Subject) -> None:
    """On a base in 4 bits everything trainable learns and the base keeps its bits, or the strategy declares that it cannot.

    A packed weight has another shape and type than the map it stands for.
    """
    with in_four_bits(subject):
        try:
            module = subject.module()
        except ConfigError as error:
            raise BrokenError(f"refused: {error}") from error
        model = module.adapted
        names, before = trainable(model), snapshot(model)
        train(module, [batch(module)] * 3)
        changed = moved(before, model)
        require(names <= changed, f"over 4 bits {few(names - changed)} does not move")
        stray = changed - subject.strategy.owned(model)
        require(not stray, f"over 4 bits training changed {few(stray)}, which the strategy does not own")
        require(bool(loss_of(module, batch(module)).isfinite()), "over 4 bits the loss is not finite")


@contextmanager
def in_four_bits(subject: Subject) -> Iterator[None]:
    """The strategy as if it asked for the base that QLoRA loads, unless it asks for a quantised one itself."""
    if subject.quantised:
        yield
        return
    options = QLoRA().load_options(Placement(device=torch.device("cpu"), precision="32-true"))
    with patch.object(type(subject.strategy), "load_options", lambda self, placement: options):
        yield
