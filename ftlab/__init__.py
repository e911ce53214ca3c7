"""ftlab: compare ways of fine-tuning Hugging Face models on PyTorch Lightning.

The names below are imported when they are first used, so that `import ftlab` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.backbone import Backbone as Backbone
    from ftlab.bank import AdapterBank as AdapterBank
    from ftlab.batch import Batch as Batch
    from ftlab.data.datamodule import FinetuneData as FinetuneData
    from ftlab.data.sources.base import DataSource as DataSource
    from ftlab.loading import load as load
    from ftlab.module import FinetuneModule as FinetuneModule
    from ftlab.optim.schedule import Schedule as Schedule
    from ftlab.strategies.base import TuningStrategy as TuningStrategy
    from ftlab.tasks.base import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "AdapterBank": "ftlab.bank",
    "Backbone": "ftlab.backbone",
    "Batch": "ftlab.batch",
    "DataSource": "ftlab.data.sources.base",
    "FinetuneData": "ftlab.data.datamodule",
    "FinetuneModule": "ftlab.module",
    "Schedule": "ftlab.optim.schedule",
    "Task": "ftlab.tasks.base",
    "TuningStrategy": "ftlab.strategies.base",
    "load": "ftlab.loading",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
