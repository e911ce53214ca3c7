"""Full fine-tuning: all of the model, its last layers, its head, or parameters chosen by pattern."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from ftlab.errors import ConfigError, suggest
from ftlab.heads import body_of, output_of
from ftlab.probe import probe_inputs, probing
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.targets import compiled, layer_list


@dataclass(frozen=True, kw_only=True)
class Full(TuningStrategy):
    """Train the model's own weights; by default all of them.

    Args:
        last_layers: Train only this many of the last layers, with the final norm and the head; 0 is the head alone.
        pattern: Train only parameters whose whole name matches this regular expression, and fresh heads.
    """

    traits = Traits(
        mergeable=True, learning_rate=5e-5, fails={"quantised_base": "weights packed into integers have no gradient; use QLoRA"}
    )

    last_layers: int | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.last_layers is not None and self.pattern is not None:
            raise ConfigError("model.tuning.last_layers and model.tuning.pattern are both set; choose one of them.")
        if self.last_layers is not None and self.last_layers < 0:
            raise ConfigError(f"model.tuning.last_layers is {self.last_layers}; it must be 0 (the head alone) or more.")
        if self.pattern is not None:
            compiled(self.pattern, "model.tuning.pattern")

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        everything = self.last_layers is None and self.pattern is None
        model.requires_grad_(everything)
        if self.pattern is not None:
            _unfreeze_matching(model, self.pattern)
        if self.last_layers is not None:
            for module in _top(model, self.last_layers):
                module.requires_grad_(True)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        return model


def _unfreeze_matching(model: nn.Module, pattern: str) -> None:
    expression = compiled(pattern, "model.tuning.pattern")
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if expression.fullmatch(name)]
    if not found:
        raise ConfigError(f"model.tuning.pattern '{pattern}' matches no parameter; {suggest(pattern, names, 5)}")
    for name in found:
        model.get_parameter(name).requires_grad_(True)


def _top(model: nn.Module, count: int) -> Iterator[nn.Module]:
    """The head, and for a count above 0 the last layers and whatever the model computes after them."""
    body, output = body_of(model), output_of(model)
    yield from (m for m in model.children() if m is not body)
    if output is not None:
        yield output
    if count == 0:
        return
    _, layers = layer_list(body)
    if count > len(layers):
        raise ConfigError(f"model.tuning.last_layers is {count}; {type(model).__name__} has {len(layers)} layers.")
    yield from layers[-count:]
    yield from _after(model, body, layers[-1])


def _after(model: nn.Module, body: nn.Module, last: nn.Module) -> list[nn.Module]:
    """The modules of the body that run after its last layer, such as the final norm and a pooler, found by running it."""
    done: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda module, _, __: done.append(module)) for m in body.modules()]
    try:
        with probing(model):
            model(**probe_inputs(model, model.config.get_text_config().vocab_size))  # type: ignore[union-attr, operator]
    finally:
        for handle in handles:
            handle.remove()
    around = {m for m in body.modules() if last in set(m.modules())}
    return [m for m in done[done.index(last) + 1 :] if m not in around]
