"""What `apply` makes: a module that starts where it should, from its seed alone, and that no other module feels."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ftlab.errors import ConfigError, FtlabError
from ftlab.parity import REARRANGED
from ftlab.spec import spec_of
from ftlab.strategies.targets import leaf_names, linear_names
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, alike, check, distance, require
from ftlab.testing.conformance.subject import Subject, batch, train
from ftlab.testing.conformance.tensors import few, logits, moved, snapshot

WRONG = "no_such_module"


@check("contract")
def applies(subject: Subject) -> None:
    """The strategy can be applied to a small model, and trains something; shown the shapes alone, it refuses no more.

    Every other check would fail for this one's reason.
    """
    model = subject.module().adapted
    require(any(p.requires_grad for p in model.parameters()), "apply leaves nothing trainable")
    try:
        subject.unbuilt().rehearse()
    except FtlabError as error:
        raise BrokenError(f"on the meta device apply refuses the model that it takes with values: {error}") from error


@check("applies")
def instances_apart(subject: Subject) -> None:
    """Two modules made by one strategy share nothing, and the strategy itself stays as it was.

    Adapters kept on the class, or a hook that remembers the first model, make the second trial of a study train the first one's model.
    """
    strategy = subject.strategy
    spec, held = spec_of(strategy), dict(vars(strategy))
    first, second = subject.module(), subject.module(seed=1)
    shared = _storages(first.adapted) & _storages(second.adapted)
    require(not shared, f"two applied models share {len(shared)} tensors in memory")
    for one, other in ((first, second), (second, first)):
        before = snapshot(other.adapted)
        train(one, [batch(one)] * 2)
        changed = moved(before, other.adapted)
        require(not changed, f"training one model changed {few(changed)} of another")
    require(spec_of(strategy) == spec and dict(vars(strategy)) == held, "the strategy's own fields changed while a model was trained")


def _storages(model: nn.Module) -> set[int]:
    tensors = [*model.parameters(), *model.buffers()]
    return {t.untyped_storage().data_ptr() for t in tensors} - {0}


@check("instances_apart")
def same_seed(subject: Subject) -> None:
    """The same seed gives the same bits, and what is random afterwards still follows the seed.

    An initialisation from the clock cannot be repeated; one that seeds the global generator gives every trial the same dropout.
    """
    states = []
    for _ in range(2):
        module = subject.module(seed=3)
        train(module, [batch(module)] * 2)
        states.append(snapshot(module.adapted))
    changed = {name for name, t in states[0].items() if not torch.equal(t, states[1][name])}
    require(not changed, f"two runs from one seed differ in {few(changed)}")
    drawn = []
    for seed in (1, 2):
        subject.module(seed=seed)
        drawn.append(torch.rand(4))
    require(not torch.equal(*drawn), "after apply the global generator does not depend on the seed any more")


@check("instances_apart")
def starts_at_base(subject: Subject) -> None:
    """Before the first step the model computes what the base does, or `traits.starts_at_base` says that it does not.

    A reset module or a wrong scale at the start throws away some of the pretraining, and the loss curve does not show it.
    """
    module = subject.module()
    inputs = batch(module).inputs
    expected, got = logits(subject.base(module), inputs), logits(module.adapted, inputs)
    if subject.strategy.traits.starts_at_base:
        alike(expected, got, REARRANGED, "the model does not start at the base; mend it, or declare traits.starts_at_base=False")
    else:
        apart = distance(expected, got) > REARRANGED
        require(apart, "traits.starts_at_base is False, but the model starts at the base; declare it True")


@check("applies")
def targets_refused(subject: Subject) -> None:
    """A name that matches no module is refused, also beside one that does.

    PEFT takes `target_modules` with one right and one misspelt name, and trains half of what was asked for.
    """
    fields = dict(target_fields(subject))
    if not fields:
        raise NotApplicableError("no field names modules")
    for name, wrong in fields.items():
        _refused(subject, name, wrong)
        if isinstance(wrong, list) and wrong == [WRONG]:
            right = next((leaf for leaf in _leaves(subject) if _accepted(subject, {name: [leaf]})), None)
            if right is not None:
                _refused(subject, name, [right, WRONG])


def target_fields(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Fields that name modules, each with a value that means none of them."""
    hints = typing.get_type_hints(type(subject.strategy))
    for name in vars(subject.strategy):
        if subject.targets is None or name in subject.targets:
            wrong = _meaningless(hints[name], subject.targets is not None)
            if wrong is not None:
                yield name, wrong


def _meaningless(hint: Any, text: bool) -> Any:
    """A value of a type that names nothing in any model; None where the type holds no names."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
    values: dict[Any, Any] = {list[str]: [WRONG], list[int]: [10**6], dict[str, int]: {WRONG: 1}, dict[str, float]: {WRONG: 1.0}}
    found = [values[part] for part in parts if part in values]
    return found[0] if found else WRONG if text and str in parts else None


def _leaves(subject: Subject) -> list[str]:
    return leaf_names(linear_names(subject.base(subject.module())))


def _accepted(subject: Subject, fields: dict[str, Any]) -> bool:
    try:
        subject.but(fields).module(subject.family)
    except ConfigError:
        return False
    return True


def _refused(subject: Subject, name: str, value: Any) -> None:
    try:
        accepted = _accepted(subject, {name: value})
    except Exception as error:
        raise BrokenError(f"{name} {value!r} raises {type(error).__name__} ({error}) instead of a ConfigError") from error
    require(not accepted, f"{name} {value!r} is taken, though '{WRONG}' matches nothing")
