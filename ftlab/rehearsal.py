"""What a strategy refuses by a model's architecture, found before a row is tokenised or a weight is read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ftlab import rng
from ftlab.errors import FtlabError
from ftlab.growth import grow
from ftlab.heads import fresh_modules
from ftlab.strategies.applied import applied

if TYPE_CHECKING:
    from torch import nn

    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)


def rehearse(module: FinetuneModule) -> None:
    """Apply a module's strategy to its architecture alone, on the meta device, where tensors have a shape and no values.

    What needs values, such as a probe of what a model attends to, is judged when the real model is built.

    Raises:
        FtlabError: The task has no model of this architecture, the strategy refuses it, or a name in its fields means nothing there.
    """
    if module.model is not None:
        return
    outline = replace(module.backbone, fresh=True)
    with rng.untouched(), _silent():
        try:
            with torch.device("meta"):
                model, _ = outline.load_model(module.task.auto_class, {}, {})
                heads = {} if _is_stored(module, model) else fresh_modules(model, set(), outline)
                heads |= grow(model, module.backbone, module.tokenizer)
                applied(module.tuning.bind(module.tokenizer), model, heads)
        except FtlabError as error:
            if not isinstance(error.__cause__, RuntimeError):  # as torch says that a value was asked for
                raise
        except Exception as error:  # whatever a strategy does with values that are not there
            log.debug("%s cannot be rehearsed: %s", type(module.tuning).__name__, error)


def _is_stored(module: FinetuneModule, model: nn.Module) -> bool:
    """Whether the stored weights fill the heads too, as far as the configuration tells."""
    stored = module.hf_config.architectures
    return not module.backbone.fresh and (stored is None or type(model).__name__ in stored)


@contextmanager
def _silent() -> Iterator[None]:
    """No warning and no line of the log: the real application says the same once more."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
