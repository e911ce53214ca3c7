"""What a class says about itself: its contract, its documentation, its way through YAML."""

from __future__ import annotations

import dataclasses

from ftlab import source
from ftlab.plugin_contract import check_class
from ftlab.strategies.base import TuningStrategy
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import check, require
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import misdeclared


@check()
def contract(subject: Subject) -> None:
    """The class is a frozen, keyword-only dataclass whose methods can be called as the contract calls them.

    Otherwise its arguments cannot be stored in a checkpoint, and a hook of another form fails in the middle of a run.
    """
    kind = type(subject.strategy)
    check_class(kind, TuningStrategy, kind.__name__)
    for declared in (subject.strategy.traits.fails, subject.fails):
        require(not misdeclared(declared), misdeclared(declared))


@check("contract")
def documented(subject: Subject) -> None:
    """Every field has its line in the docstring, which is its `--help`.

    PEFT's configurations grew fields that only their source explains.
    """
    kind = type(subject.strategy)
    found = source.read(f"{kind.__module__}.{kind.__qualname__}")
    require(bool(found.summary), "the class has no docstring; its first sentence is what `ftlab list` shows")
    texts = {p.name: p.text for p in found.parameters}
    for field in dataclasses.fields(kind):
        require(bool(texts.get(field.name)), f"the field '{field.name}' has no line under Args: in the docstring of {kind.__name__}")


@check("applies")
def yaml(subject: Subject) -> None:
    """YAML → object → YAML gives the same fields, by the parser of `ftlab fit`.

    A field that is changed while it is read is changed again when a run is resumed from its own configuration.
    """
    server.call("yaml", subject)
