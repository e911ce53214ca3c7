"""Several strategies on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from torch import Tensor, nn

from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.strategies.base import NotMergeableError, Placement, Traits, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PARTS = "ftlab_parts"
T = TypeVar("T")


class Parts(nn.Module):
    """Which parameters belong to which strategy; it has none of its own.

    Args:
        names: For each strategy, the names of the parameters that it trains.
    """

    def __init__(self, names: list[frozenset[str]]) -> None:
        super().__init__()
        self.names = names


@dataclass(frozen=True, kw_only=True)
class Compose(TuningStrategy):
    """Several strategies on one backbone, each with tensors of its own.

    Args:
        strategies: Applied one after another, each to what the ones before it made.
        rates: Learning rate of each strategy as a multiple of the optimiser's; null is 1 for all.
    """

    traits = Traits(mergeable=None, learning_rate=5e-4, example={"strategies": [{"class_path": "LoRA"}, {"class_path": "NormTuning"}]})

    strategies: list[TuningStrategy]
    rates: list[float] | None = None

    def __post_init__(self) -> None:
        if len(self.strategies) < 2:
            raise ConfigError(f"model.tuning.strategies has {len(self.strategies)} entries; name at least two strategies to compose.")
        if any(isinstance(strategy, Compose) for strategy in self.strategies):
            raise ConfigError("model.tuning.strategies holds a Compose; list its strategies here instead, with their rates.")
        if self.rates is not None and (len(self.rates) != len(self.strategies) or not all(0 < rate < float("inf") for rate in self.rates)):
            raise ConfigError(f"model.tuning.rates is {self.rates}; give a number above 0 for each of {len(self.strategies)} strategies.")

    def load_options(self, placement: Placement) -> dict[str, object]:
        chosen: dict[str, object] = {}
        for strategy in self.strategies:
            for key, value in strategy.load_options(placement).items():
                if chosen.setdefault(key, value) != value:
                    raise ConfigError(
                        f"model.tuning.strategies: {_name(strategy)} loads the base with another {key} than the ones before it."
                    )
        return chosen

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        return replace(self, strategies=[strategy.bind(tokenizer) for strategy in self.strategies])

    def virtual_tokens(self) -> int:
        return sum(strategy.virtual_tokens() for strategy in self.strategies)

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        owners: dict[Tensor, str] = {}
        parts: list[set[Tensor]] = []
        fresh = {p for head in heads.values() for p in head.parameters()}
        for number, strategy in enumerate(self.strategies):
            before = set(model.modules())
            model = strategy.apply(model, heads)
            trained: set[Tensor] = {p for p in model.parameters() if p.requires_grad and not (number and p in fresh)}
            _refuse_shared(model, strategy, trained, owners)
            _refuse_nested(model, strategy, before, owners)
            owners |= dict.fromkeys(trained, _name(strategy))
            parts.append(trained)
        for parameter in owners:
            parameter.requires_grad_(True)
        named = list(model.named_parameters())
        model.add_module(_PARTS, Parts([frozenset(n for n, p in named if p in part) for part in parts]))
        return model

    def prepare(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        kept = list(batches) if sum(type(s).prepare is not TuningStrategy.prepare for s in self.strategies) > 1 else batches
        for strategy in self.strategies:
            strategy.prepare(model, kept)

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        groups: list[dict[str, object]] = []
        for number, strategy in enumerate(self.strategies):
            with _only(model, number):
                rate = lr if self.rates is None else lr * self.rates[number]
                groups += strategy.param_groups(model, rate, weight_decay)
        return groups

    def extra_losses(self, model: nn.Module, outputs: object, batch: Batch) -> dict[str, Tensor]:
        return self._together(lambda s: s.extra_losses(model, outputs, batch))

    def on_gradients(self, model: nn.Module, step: int) -> None:
        for strategy in self.strategies:
            strategy.on_gradients(model, step)

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        for strategy in self.strategies:
            strategy.on_step(model, step, total)

    def owned(self, model: nn.Module) -> frozenset[str]:
        return frozenset().union(*(strategy.owned(model) for strategy in self.strategies))

    def merge(self, model: nn.Module) -> nn.Module:
        for strategy in self.strategies:
            if strategy.traits.mergeable is False:
                raise NotMergeableError(f"Compose holds {_name(strategy)}, which has no merged form; export the adapter instead.")
        delattr(model, _PARTS)
        for strategy in reversed(self.strategies):
            model = strategy.merge(model)
        return model

    def metrics(self, model: nn.Module) -> dict[str, float]:
        return self._together(lambda s: s.metrics(model))

    def _together(self, of: Callable[[TuningStrategy], dict[str, T]]) -> dict[str, T]:
        """What every strategy gives, under its own name where two have the same one."""
        found: dict[str, T] = {}
        for number, strategy in enumerate(self.strategies):
            for key, value in of(strategy).items():
                found[key if key not in found else f"{key}_{number}"] = value
        return found


def _name(strategy: TuningStrategy) -> str:
    return type(strategy).__name__


def _refuse_shared(model: nn.Module, strategy: TuningStrategy, trained: set[Tensor], owners: Mapping[Tensor, str]) -> None:
    for name, parameter in model.named_parameters():
        if parameter in trained and parameter in owners:
            both = f"{owners[parameter]} and {_name(strategy)} both train '{name}'"
            raise ConfigError(f"model.tuning.strategies: {both}; narrow one of them down, or leave it out.")


def _refuse_nested(model: nn.Module, strategy: TuningStrategy, before: set[nn.Module], owners: Mapping[Tensor, str]) -> None:
    """Refuse an adapter around a module that another strategy trains whole, such as another adapter's own matrices."""
    for name, module in model.named_modules():
        for child in module.children() if module not in before else ():
            own = list(child.parameters(recurse=False))
            if child in before and own and all(p in owners for p in own):
                both = f"{_name(strategy)} adapts '{name}', which {owners[own[0]]} trains"
                raise ConfigError(f"model.tuning.strategies: {both}; choose other target modules, or another order.")


@contextmanager
def _only(model: nn.Module, number: int) -> Iterator[None]:
    """`model` with nothing trainable but what belongs to one strategy."""
    parts: Any = getattr(model, _PARTS)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in named.items():
        parameter.requires_grad_(name in parts.names[number])
    try:
        yield
    finally:
        for parameter in named.values():
            parameter.requires_grad_(True)
