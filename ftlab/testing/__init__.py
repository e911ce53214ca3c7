"""Offline material for tests of ftlab and of its plugins, and the conformance suites of plugins, imported when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.testing.conformance import DataConformance as DataConformance
    from ftlab.testing.conformance import StrategyConformance as StrategyConformance
    from ftlab.testing.conformance import TaskConformance as TaskConformance

__all__ = ["DataConformance", "StrategyConformance", "TaskConformance"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'ftlab.testing' has no attribute {name!r}")
    from ftlab.testing import conformance

    return getattr(conformance, name)
