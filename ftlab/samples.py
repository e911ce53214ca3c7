"""A few inputs to compare two models on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftlab.errors import FtlabError

if TYPE_CHECKING:
    from ftlab.data.datamodule import FinetuneData
    from ftlab.data.store import TokenStore
    from ftlab.module import FinetuneModule

log = logging.getLogger(__name__)

_ROWS = 8
_LENGTH = 16
_AT_MOST = 64
"""Tokens of a row that are compared at the end of a fit, where a big model may have to run on the CPU."""


def sample(module: FinetuneModule, data: FinetuneData) -> list[Mapping[str, Tensor]]:
    """Rows of the run's validation split, else of its training split, else random tokens where its data cannot be had."""
    data.trainer = SimpleNamespace(lightning_module=module)  # type: ignore[assignment]  # all that reading rows asks of it
    stage, split = ("validate", "val") if data.wanted["val"] is not None else ("fit", "train")
    try:
        data.setup(stage)
    except FtlabError as error:
        log.warning("the run's data cannot be had (%s); the models are compared on random tokens", error)
        return [random_tokens(module)]
    finally:
        data.trainer = None
    store = data.stores[split]
    return [_inputs(module, store, _ROWS)]


def short_sample(module: FinetuneModule, data: FinetuneData) -> list[Mapping[str, Tensor]]:
    """The beginnings of a few rows of a data module that has been set up, its validation split first."""
    store = next(data.stores[split] for split in ("val", "train") if split in data.stores)
    inputs = _inputs(module, store, _ROWS // 2)
    length = inputs["input_ids"].shape[1]
    return [{name: t[:, :_AT_MOST] if t.ndim == 2 and t.shape[1] == length else t for name, t in inputs.items()}]


def _inputs(module: FinetuneModule, store: TokenStore, rows: int) -> dict[str, Tensor]:
    """The first examples as evaluation shows them."""
    task, tokenizer = module.task, module.tokenizer
    return task.collate([task.draw(store, i, (0, 0, i), tokenizer) for i in range(min(rows, len(store)))], tokenizer).inputs


def random_tokens(module: FinetuneModule) -> dict[str, Tensor]:
    """The same ids every time, the last of the vocabulary, which may be new, among them."""
    config = module.adapted.config.get_text_config()  # type: ignore[union-attr, operator]
    size = int(config.vocab_size)
    context = module.backbone.context(module.hf_config)
    length = _LENGTH if context is None else min(_LENGTH, context - module.tuning.virtual_tokens())
    rows = length if module.task.auto_class == "AutoModelForMultipleChoice" else _ROWS  # given (B, T) it takes T for the number of choices
    ids = torch.randint(0, size, (rows, length), generator=torch.Generator().manual_seed(0))
    ids[:, length // 2] = size - 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
