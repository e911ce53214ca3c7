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
