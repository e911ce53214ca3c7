"""The keys read from source text against the keys of the parser that is really built."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.optim import Optimizer
from torchmetrics import Metric

from ftlab import registry
from ftlab.keys import CLASS_KEYS, known, parameter
from tests.unit.commands.parsers import built
from tests.unit.hints import constructor_hints


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_the_source_has_the_keys_of_the_parser(command: str) -> None:
    names = {a.dest for a in built(command)._actions}
    leaves = {n for n in names if not any(other.startswith(f"{n}.") for other in names if not other.endswith(".help"))}
    expected = {n for n in leaves if n.rpartition(".")[2] != "help"} | {"help", "c", "h"}
    assert set(known(command).leaves) - {"print_config"} == expected - {"print_config"}


def test_keys_that_name_classes_are_all_known_as_such() -> None:
    # An argument whose type holds a class of Lightning's, torch's or torchmetrics' is one whose value may name a class.
    hints = {a.dest: a._typehint for a in built("fit")._actions if hasattr(a, "_typehint")}
    naming = {key for key, hint in hints.items() if _ours(key) and any(map(_builds, _parts(hint)))}
    assert naming == set(CLASS_KEYS)


def _ours(key: str) -> bool:
    return key.startswith(("trainer.", "model.", "data.")) and not key.endswith(".help")


def _builds(part: Any) -> bool:
    return isinstance(part, type) and part.__module__.partition(".")[0] in ("lightning", "torch", "torchmetrics")


def _parts(hint: Any) -> Iterator[Any]:
    """A type and everything inside it."""
    yield hint
    for inner in typing.get_args(hint):
        for each in inner if isinstance(inner, list) else [inner]:
            yield from _parts(each)


def _hints() -> Iterator[tuple[str, Any]]:
    from ftlab import Backbone, FinetuneData, FinetuneModule, Schedule
    from ftlab.run_folder import RunOptions

    classes: list[type] = [FinetuneModule, FinetuneData, Backbone, Schedule, RunOptions, *(registry.load(p) for p in registry.plugins())]
    for cls in classes:
        signature = inspect.signature(cls)
        hints, _ = constructor_hints(cls)
        for name in signature.parameters:
            assert name in hints, f"{cls.__name__}.{name} has no type"
            yield f"{cls.__name__}.{name}", hints[name]


def _open(hint: Any) -> Any:
    """A part of a type that would take any value, any class or any callable; None where there is none."""
    return next((p for p in _parts(hint) if p in (Any, object, *_BARE) or typing.get_origin(p) is Callable), None)


_BARE: tuple[Any, ...] = (Callable, typing.Callable, dict, list, tuple, set, inspect.Parameter.empty)


@pytest.mark.parametrize(
    "hint", [Any, object, dict, list[Any], dict[str, Any], Callable[..., int], Callable, int | list[dict[str, object]]]
)
def test_the_walk_finds_what_is_open(hint: Any) -> None:
    assert _open(hint) is not None


def test_no_parameter_takes_anything_or_any_callable() -> None:
    hints = dict(_hints())
    # Factories whose result must be an optimiser or a metric: the parser takes a subclass, or a function annotated so.
    for name, result in (("optimizer", Optimizer), ("metrics", Metric)):
        made = [part for part in _parts(hints.pop(f"FinetuneModule.{name}")) if typing.get_origin(part) is Callable]
        assert [typing.get_args(part)[1] for part in made] == [result]
    assert {name: part for name, hint in hints.items() if (part := _open(hint)) is not None} == {}
    assert len(hints) > 50


def test_a_key_leads_to_its_argument() -> None:
    dtype = parameter("model.backbone.dtype")
    assert dtype is not None
    assert (dtype.type, dtype.default) == ("Literal['auto', 'float32', 'bfloat16', 'float16']", "'float32'")
    assert parameter("model.backbone.none") is None
    assert parameter("elsewhere.x") is None
