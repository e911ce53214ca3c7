"""The conformance suites of tuning strategies, tasks and data sources; subclass one of the classes, or run `ftlab check`."""

# The order is that of the checks.
# isort: off
from ftlab.testing.conformance import declaring, applying, learning, storing, rows, backbones, running, ranks
from ftlab.testing.conformance.tasks import binding, encoding, drawing, scoring, training, predicting
from ftlab.testing.conformance.sources import reading, following

# isort: on
from ftlab.testing.conformance.author import DataConformance, StrategyConformance, TaskConformance
from ftlab.testing.conformance.check import CHECKS, OF_KIND, SOURCE_CHECKS, TASK_CHECKS

__all__ = [
    "CHECKS", "OF_KIND", "SOURCE_CHECKS", "TASK_CHECKS", "DataConformance", "StrategyConformance", "TaskConformance", "applying",
    "backbones", "binding", "declaring", "drawing", "encoding", "following", "learning", "predicting", "ranks", "reading", "rows",
    "running", "scoring", "storing", "training",
]  # fmt: skip
