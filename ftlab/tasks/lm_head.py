"""The way from a language model's hidden states to its logits, found once per model and checked against the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ftlab.heads import body_of, output_of
from ftlab.probe import probe_inputs, probing, same

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageHead:
    """A body that gives hidden states and the linear map, scale and soft cap that turn them into logits.

    Args:
        body: The backbone below the head; returns `last_hidden_state` (B, T, D).
        linear: The output embedding.
        vocabulary: V.
        scale: Factor on the logits (Cohere, Granite).
        softcap: Logits are `c · tanh(logits / c)` (Gemma 2).
    """

    body: nn.Module
    linear: nn.Module
    vocabulary: int
    scale: float = 1.0
    softcap: float | None = None

    def project(self, hidden: Tensor) -> Tensor:
        """(…, D) hidden states → (…, V) logits."""
        logits: Tensor = self.linear(hidden)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


_found: WeakKeyDictionary[nn.Module, LanguageHead | None] = WeakKeyDictionary()


def language_head(model: nn.Module) -> LanguageHead | None:
    """The head of `model`, or None where hidden states and a linear map do not give the model's own logits.

    The answer is found with one forward pass over four tokens and remembered; the reason for a None is logged once.
    """
    if model not in _found:
        _found[model] = _find(model)
    return _found[model]


def _find(model: nn.Module) -> LanguageHead | None:
    body, linear = body_of(model), output_of(model)
    config = getattr(model, "config", None)
    if body is model or linear is None or config is None:
        log.info("chunked loss: not applicable, %s has no separate body and output embedding", type(model).__name__)
        return None
    scaling = getattr(config, "logits_scaling", None)
    scale = 1.0 / scaling if scaling else getattr(config, "logit_scale", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    vocabulary = int(config.get_text_config().vocab_size)
    head = LanguageHead(body, linear, vocabulary, float(scale), softcap)
    if _agrees(model, head):
        return head
    log.info("chunked loss: not applicable, the logits of %s are more than a linear map of its hidden states", type(model).__name__)
    return None


def _agrees(model: nn.Module, head: LanguageHead) -> bool:
    inputs = probe_inputs(model, head.vocabulary)
    with probing(model):
        expected: Tensor = model(**inputs, use_cache=False).logits
        got = head.project(head.body(**inputs, use_cache=False).last_hidden_state)
    return same(expected, got)
