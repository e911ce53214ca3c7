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
    module.backbone.require(module.task.auto_class, module.hf_config)
    _ = module.tokenizer  # loaded before the log is silent: a hub that does not answer is said once
    with rng.untouched(), _silent(), torch.device("meta"):
        refusal = _refusal(module, all_fresh=module.backbone.fresh)
        # A stored head is fresh too where the data have another number of labels, which is not known yet.
        if refusal is not None and (module.backbone.fresh or _refusal(module, all_fresh=True) is not None):
            raise refusal


def _refusal(module: FinetuneModule, all_fresh: bool) -> FtlabError | None:
    outline = replace(module.backbone, fresh=True)
    try:
        model, _ = outline.load_model(module.task.auto_class, {}, {})
        heads = fresh_modules(model, set(), outline) if all_fresh else fresh_modules(model, _missing(module, model), module.backbone)
        heads |= grow(model, module.backbone, module.tokenizer)
        applied(module.tuning.bind(module.tokenizer), model, heads)
    except FtlabError as error:
        return None if isinstance(error.__cause__, RuntimeError) else error  # torch raises that where a value is asked for
    except Exception as error:  # whatever a strategy does with values that are not there
        log.debug("%s cannot be rehearsed: %s", type(module.tuning).__name__, error)
    return None


def _missing(module: FinetuneModule, model: nn.Module) -> set[str]:
    """The parameters that a model of the stored class does not have; none where the configuration names no model of transformers."""
    import transformers

    kind: object = getattr(transformers, (module.hf_config.architectures or [""])[0], None)
    # Whoever wrote the configuration chose the name, so nothing else of transformers may be called.
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel) or kind is type(model):
        return set()
    stored = kind(module.backbone.load_config())
    held = {_below(stored, name): p.shape for name, p in stored.named_parameters()}
    return {name for name, p in model.named_parameters() if held.get(_below(model, name)) != p.shape}


def _below(model: nn.Module, name: str) -> str:
    """A parameter's name without that of the body, which classes spell in their own way."""
    return name.removeprefix(f"{model.base_model_prefix}.")


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
