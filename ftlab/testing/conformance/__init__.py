"""The conformance suite of tuning strategies; subclass `StrategyConformance`, or run `ftlab check`."""

# The order is that of the checks.
# isort: off
from ftlab.testing.conformance import declaring, applying, learning, storing, rows, backbones, running, ranks

# isort: on
from ftlab.testing.conformance.author import StrategyConformance
from ftlab.testing.conformance.check import CHECKS

__all__ = ["CHECKS", "StrategyConformance", "applying", "backbones", "declaring", "learning", "ranks", "rows", "running", "storing"]
