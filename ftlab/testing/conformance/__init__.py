"""The conformance suite of tuning strategies; subclass `StrategyConformance`, or run `ftlab check`."""

from ftlab.testing.conformance import (  # the order is that of the checks
    declaring,
    applying,
    learning,
    storing,
    rows,
    backbones,
    running,
    ranks,
)
from ftlab.testing.conformance.check import CHECKS
from ftlab.testing.conformance.author import StrategyConformance

__all__ = ["CHECKS", "StrategyConformance", "applying", "backbones", "declaring", "learning", "ranks", "rows", "running", "storing"]
