"""Asking a model a question with four tokens, without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.heads import body_of


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and no cached casts; every module's own mode is restored afterwards.

    Dropout would draw random numbers. Before torch 2.13 autocast kept the casts that it made without gradients, and a training
    step that followed in the same autocast region then trained nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    kind = device_of(model).type
    model.eval()
    try:
        with torch.no_grad(), _casting(kind):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _casting(kind: str) -> AbstractContextManager[object]:
    if kind == "meta":
        return nullcontext()  # autocast knows no such device
    precision = torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype=precision, enabled=torch.is_autocast_enabled(kind), cache_enabled=False)


def probe_inputs(model: nn.Module, vocabulary: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (1, 4): four different tokens, as far as V allows; four such rows for a model of choices."""
    from transformers import MODEL_FOR_MULTIPLE_CHOICE_MAPPING

    ids = torch.arange(4, 8, device=device_of(model)).remainder(vocabulary)[None]
    of_choices: Any = MODEL_FOR_MULTIPLE_CHOICE_MAPPING
    if of_choices.get(type(getattr(model, "config", None)), None) is type(model):
        ids = ids.repeat(4, 1)  # given (B, T) it takes T for the number of choices
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def hidden_states(model: nn.Module, body: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> list[Tensor]:
    """What `body`, a part of an HF model, gives when the model is run on each batch: (B, T, D) in float32 for every time it is called."""
    seen: list[Tensor] = []
    handle = body.register_forward_hook(lambda _module, _args, outputs: seen.append(outputs.last_hidden_state.float()))
    try:
        with probing(model):
            for inputs in batches:
                model(**inputs)
    finally:
        handle.remove()
    return seen


def unlike(first: Tensor, second: Tensor) -> bool:
    """Whether hidden states differ by far more than a flipped bit of bfloat16; another token's trace is far above that."""
    return bool((first - second).norm() > 1e-3 * first.norm())


def first_sees_others(model: nn.Module) -> bool:
    """Whether the hidden state of a text's first token depends on the tokens behind it; in a decoder it does not."""
    inputs = probe_inputs(model, model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]  # an HF model
    other = {**inputs, "input_ids": inputs["input_ids"][:, :1].expand_as(inputs["input_ids"])}
    states = [seen[:, 0] for seen in hidden_states(model, body_of(model), [inputs, other])]
    return unlike(states[0], states[-1])


def same(expected: Tensor, got: Tensor) -> bool:
    """Whether two tensors are equal but for the rounding of their type."""
    if expected.shape != got.shape:
        return False
    tolerance = max(1e-5, 4 * torch.finfo(expected.dtype).eps) * float(expected.abs().max())
    return torch.allclose(expected.float(), got.float(), rtol=0.0, atol=tolerance)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    return next(model.parameters()).device
