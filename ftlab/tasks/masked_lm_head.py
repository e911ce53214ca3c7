"""A masked language model's loss over the scored positions alone: its head never sees the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, places_of
from ftlab.heads import body_of, output_of
from ftlab.probe import probe_inputs, probing, same
from ftlab.tasks.base import Outputs
from ftlab.tasks.cross_entropy import chunk_rows, cross_entropy_sum

log = logging.getLogger(__name__)

Way: TypeAlias = Literal["features", "picked", "whole"]
"""How little of a head can be run: all of it but its last map, the head on the scored positions, or the whole model as it is."""


@dataclass(frozen=True, kw_only=True)
class MaskedOutputs(Outputs):
    """`Outputs` that also know which masked tokens were found.

    Args:
        hits: (n,) whether the likeliest token is the right one, in evaluation.
    """

    hits: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """The scored positions of a batch.

    Args:
        outputs: What the model returned; its token logits are of no use.
        hidden: (n, D) features below `head`.
        labels: (n,).
        head: Features → logits (n, V).
        vocabulary: V.
    """

    outputs: Any
    hidden: Tensor
    labels: Tensor
    head: nn.Module
    vocabulary: int

    def total(self) -> Tensor:
        """Sum of −log p(label), in float32."""
        return cross_entropy_sum(self.hidden, self.labels, self.head, self.head, self.vocabulary)

    @torch.no_grad()
    def judged(self) -> tuple[Tensor, Tensor]:
        """−log p(label) in float32 and whether the label is the likeliest token, both (n,)."""
        rows = chunk_rows(self.vocabulary)
        losses = [self.hidden.new_zeros(0, dtype=torch.float32)]
        hits = [self.labels.new_zeros(0)]
        for hidden, labels in zip(self.hidden.split(rows), self.labels.split(rows), strict=True):
            if len(labels):
                logits = self.head(hidden).float()
                losses.append(F.cross_entropy(logits, labels, reduction="none"))
                hits.append((logits.argmax(-1) == labels).long())
        return torch.cat(losses), torch.cat(hits)


def scored(model: nn.Module, batch: Batch) -> Scored:
    """Run `model` on a batch whose labels `mlm` are (B, T)."""
    labels = batch.labels["mlm"].flatten()
    places = places_of(labels != IGNORE, batch.counts()["mlm"])
    way = _way_of(model)
    outputs, features = _run(model, batch.inputs, places, way)
    head = output_of(model) if way == "features" else nn.Identity()
    assert head is not None
    return Scored(outputs, features, labels.index_select(0, places), head, _vocabulary(model))


def _run(model: nn.Module, inputs: Mapping[str, Tensor], places: Tensor, way: Way) -> tuple[Any, Tensor]:
    """The model's outputs, and features (n, D) or logits (n, V) of the positions `places` of B·T."""
    caught: list[Tensor] = []
    with _hooked(model, places, caught, way):
        outputs = model(**inputs)
    states = (caught[0] if caught else logits_of(outputs)).flatten(0, 1)
    return outputs, states.index_select(0, places) if way == "whole" else states


@contextmanager
def _hooked(model: nn.Module, places: Tensor, caught: list[Tensor], way: Way) -> Iterator[None]:
    """Show the head only `places`; with `features`, keep what its last map is called with and let it map nothing."""

    def pick(_body: nn.Module, _args: object, outputs: Any) -> Any:
        outputs["last_hidden_state"] = outputs["last_hidden_state"].flatten(0, 1).index_select(0, places)[None]
        return outputs

    def catch(_head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(args[0])
        return (args[0][:, :0], *args[1:])

    handles = [body_of(model).register_forward_hook(pick)] if way != "whole" else []
    if way == "features":
        output = output_of(model)
        handles += [output.register_forward_pre_hook(catch)] if output is not None else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def logits_of(outputs: Any) -> Tensor:
    """(B, T, V) logits of the tokens, by the name that a masked or a pre-training model gives them."""
    named: Tensor = outputs["prediction_logits"] if "prediction_logits" in outputs else outputs["logits"]
    return named


_ways: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


def _way_of(model: nn.Module) -> Way:
    """The cheapest way that gives the model's own logits; found with a few forward passes over four tokens and remembered."""
    if model not in _ways:
        _ways[model] = _find(model)
    return _ways[model]


def _find(model: nn.Module) -> Way:
    inputs = probe_inputs(model, _vocabulary(model))
    caught: list[Tensor] = []
    places = torch.tensor([1, 3], device=inputs["input_ids"].device)
    with probing(model):
        expected = logits_of(model(**inputs)).flatten(0, 1).index_select(0, places)
        if body_of(model) is not model:
            output = output_of(model)
            with _hooked(model, places, caught, "features"):
                model(**inputs)
            if output is not None and caught and same(expected, output(caught[0].flatten(0, 1))):
                return "features"
            if same(expected, _run(model, inputs, places, "picked")[1]):
                log.info("chunked loss: only the scored positions, for the last map of %s cannot be run by itself", type(model).__name__)
                return "picked"
    log.info("chunked loss: not applicable, the head of %s does not take positions one by one", type(model).__name__)
    return "whole"


def _vocabulary(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.get_text_config().vocab_size)
