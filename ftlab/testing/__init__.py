"""Offline material for tests of ftlab and of its plugins, and the conformance suite of strategies, imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.testing.conformance import StrategyConformance as StrategyConformance

__all__ = ["StrategyConformance"]


def __getattr__(name: str) -> object:
    if name != "StrategyConformance":
        raise AttributeError(f"module 'ftlab.testing' has no attribute {name!r}")
    from ftlab.testing.conformance import StrategyConformance

    return StrategyConformance
