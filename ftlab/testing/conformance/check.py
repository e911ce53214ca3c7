"""What a check is: a function with a name, a docstring that says which bug it stands for, and the checks that must hold before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor


class BrokenError(Exception):
    """What a check found wrong, in one sentence."""


class NotApplicableError(Exception):
    """Why a check has nothing to look at."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        name: What tables, declarations and `--only` call it.
        about: What must hold: the first line of its docstring.
        needs: Checks whose failure would make this one fail for a reason that is not its own.
        beside: The same, but a declared failure of theirs does not hinder this one.
        run: Raises where it does not hold.
    """

    name: str
    about: str
    needs: tuple[str, ...]
    beside: tuple[str, ...]
    run: Callable[[Any], None]


CHECKS: dict[str, Check] = {}
"""Every check of a strategy by name, in the order in which they are run."""
TASK_CHECKS: dict[str, Check] = {}
"""Those of a task."""
SOURCE_CHECKS: dict[str, Check] = {}
"""Those of a data source."""
OF_KIND = {"strategies": CHECKS, "tasks": TASK_CHECKS, "data": SOURCE_CHECKS}
"""Kind in the registry → its checks."""

Function = TypeVar("Function", bound=Callable[[Any], None])


def check(*needs: str, beside: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Make a function a check of strategies.

    Args:
        needs: Names of checks that must hold first.
        beside: Names of checks that must hold first, or fail as declared.
    """
    return _registering(CHECKS, needs, beside)


def task_check(*needs: str, beside: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """The same for tasks."""
    return _registering(TASK_CHECKS, needs, beside)


def source_check(*needs: str, beside: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """The same for data sources."""
    return _registering(SOURCE_CHECKS, needs, beside)


def _registering(checks: dict[str, Check], needs: tuple[str, ...], beside: tuple[str, ...]) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        assert function.__doc__ is not None
        name = function.__name__
        checks[name] = Check(name=name, about=function.__doc__.strip().splitlines()[0], needs=needs, beside=beside, run=function)
        return function

    return register


def require(holds: bool, sentence: str) -> None:
    """Raise `BrokenError` with a sentence unless something holds."""
    if not holds:
        raise BrokenError(sentence)


def distance(expected: Tensor, got: Tensor) -> float:
    """The largest difference by the largest size; infinite for other shapes and where numbers are not finite."""
    if expected.shape != got.shape:
        return float("inf")
    left, right = expected.double(), got.double()
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        return float("inf")
    return float((left - right).abs().max() / left.abs().max().clamp(min=1e-12))


def alike(expected: Tensor, got: Tensor, tolerance: float, sentence: str) -> None:
    """Raise `BrokenError` where two tensors differ by more than `tolerance` of the largest number."""
    found = distance(expected, got)
    require(found <= tolerance, f"{sentence} (they differ by {found:.2g} of the largest number, {tolerance:.0e} is allowed)")
