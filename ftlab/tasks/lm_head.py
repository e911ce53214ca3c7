"""The way from a language model's hidden states to its logits, found once per model and checked against the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

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
    body = getattr(model, "base_model", model)
    linear = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    config = getattr(model, "config", None)
    if body is model or not isinstance(linear, nn.Module) or config is None:
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


@torch.no_grad()
def _agrees(model: nn.Module, head: LanguageHead) -> bool:
    was_training = [(m, m.training) for m in model.modules()]
    model.eval()  # dropout would draw random numbers and make the two passes differ
    try:
        device = next(head.linear.parameters()).device
        ids = torch.arange(1, 5, device=device).remainder(head.vocabulary)[None]
        expected = model(input_ids=ids, use_cache=False).logits.float()
        got = head.project(head.body(input_ids=ids, use_cache=False).last_hidden_state).float()
    finally:
        for module, mode in was_training:
            module.training = mode
    return expected.shape == got.shape and torch.allclose(expected, got, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
