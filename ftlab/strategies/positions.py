"""Which tokens of a batch are the first and the last of their rows, known to modules deep inside the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError


class Positions:
    """The tokens that some spans mean in the batch at hand, for as long as the model computes it.

    Args:
        spans: Pairs (first, last), the numbers of tokens at the beginning and at the end of each row. A token that two spans mean
            belongs to the earlier one.
    """

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self.spans = spans
        self.now: list[Tensor] = []
        """For each span, (B, T), true at its tokens."""
        self._entered: nn.Module | None = None

    def watch(self, model: nn.Module) -> None:
        """Take the batch from the calls of `model`, or of whatever else is watched and called first."""
        names = tuple(inspect.signature(model.forward).parameters)
        model.register_forward_pre_hook(partial(self._enter, names), with_kwargs=True)
        model.register_forward_hook(self._leave, always_call=True)

    def _enter(self, names: tuple[str, ...], module: nn.Module, args: tuple[object, ...], given: Mapping[str, object]) -> None:
        named = {**dict(zip(names, args, strict=False)), **given}  # few arguments are given by place
        ids = named.get("input_ids")
        choices = isinstance(ids, Tensor) and ids.ndim > 2  # (B, C, T), of which what is called next gets rows (B·C, T)
        if self._entered is None and not choices:
            self.now = self._chosen(named)
            self._entered = module

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        if self._entered is module:
            self._entered, self.now = None, []

    def _chosen(self, given: Mapping[str, object]) -> list[Tensor]:
        start, end, real = _counted(given)
        found: list[Tensor] = []
        for first, last in self.spans:
            chosen = real & ((start < first) | (end < last))
            for earlier in found:
                chosen = chosen & ~earlier
            found.append(chosen)
        return found


def _counted(given: Mapping[str, object]) -> tuple[Tensor, Tensor, Tensor]:
    """For each token (B, T): the real ones before it in its row, those after it, and whether it is real itself.

    Raises:
        ConfigError: The attention mask is not of the form (B, T), so it does not say which tokens are real.
    """
    tokens = next(t for t in (given.get("input_ids"), given.get("inputs_embeds")) if isinstance(t, Tensor))
    batch, length = tokens.shape[:2]
    mask, places = given.get("attention_mask"), given.get("position_ids")
    if mask is None:
        mask = torch.ones(batch, _past(given) + length, device=tokens.device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ConfigError("model.tuning counts the tokens of each row, and attention_mask is not one number a token; give it as (B, T).")
    real = mask.bool()
    upto = real.cumsum(1)
    before, after, real = (upto - 1)[:, -length:], (upto[:, -1:] - upto)[:, -length:], real[:, -length:]
    if isinstance(places, Tensor) and places.ndim == 2:  # rows may be packed, each counted from 0
        before = places.expand(batch, length)
        after = _to_end(before, real)
    return before, after, real


def _past(given: Mapping[str, object]) -> int:
    """Tokens that a cache holds already."""
    count = getattr(given.get("past_key_values"), "get_seq_length", None)
    return int(count()) if callable(count) else 0


def _to_end(places: Tensor, real: Tensor) -> Tensor:
    """For each token (B, T), the steps to the last one of its row: where the next is padding, or does not count on."""
    ends = torch.ones_like(real)
    ends[:, :-1] = (places[:, 1:] != places[:, :-1] + 1) | ~real[:, 1:]
    steps = torch.arange(places.shape[1], device=places.device).expand_as(places)
    nearest = steps.masked_fill(~ends, places.shape[1]).flip(1).cummin(1).values.flip(1)
    return nearest - steps
