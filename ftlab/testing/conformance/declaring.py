"""What a class says about itself: its contract, its documentation, its way through YAML."""

from __future__ import annotations

import dataclasses
import importlib
import pickle

from ftlab import registry, source
from ftlab.plugin_contract import check_class
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import check, require, source_check, task_check
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.suite import misdeclared


@check()
@task_check()
@source_check()
def contract(subject: Examined) -> None:
    """The class is a frozen, keyword-only dataclass whose methods can be called as the contract calls them.

    Otherwise its arguments cannot be stored in a checkpoint, and a hook of another form fails in the middle of a run.
    """
    kind = type(subject.plugin)
    module, _, base = registry.KINDS[subject.kind].rpartition(".")
    check_class(kind, getattr(importlib.import_module(module), base), kind.__name__)
    for declared in (subject.admitted, subject.fails):
        require(not misdeclared(declared, subject.checks), misdeclared(declared, subject.checks))
    same = pickle.loads(pickle.dumps(subject.plugin)) == subject.plugin
    require(same, "pickled and unpickled, as for a worker process, it is another")


@check("contract")
@task_check("contract")
@source_check("contract")
def documented(subject: Examined) -> None:
    """Every field has its line in the docstring, which is its `--help`.

    PEFT's configurations grew fields that only their source explains.
    """
    kind = type(subject.plugin)
    found = source.read(f"{kind.__module__}.{kind.__qualname__}")
    require(bool(found.summary), "the class has no docstring; its first sentence is what `ftlab list` shows")
    texts = {p.name: p.text for p in found.parameters}
    for field in dataclasses.fields(kind):
        require(bool(texts.get(field.name)), f"the field '{field.name}' has no line under Args: in the docstring of {kind.__name__}")


@check("applies")
@task_check("contract")
@source_check("contract")
def yaml(subject: Examined) -> None:
    """YAML → object → YAML gives the same fields, by the parser of `ftlab fit`.

    A field that is changed while it is read is changed again when a run is resumed from its own configuration.
    """
    server.call("yaml", subject)
