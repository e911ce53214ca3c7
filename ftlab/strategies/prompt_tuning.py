"""Prompt tuning: trained vectors in the input of a frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.probe import device_of
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.soft_prompt import attach, save_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Vectors(nn.Module):
    """The vectors themselves, (P, D)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self) -> Tensor:
        return self.weight


@dataclass(frozen=True, kw_only=True)
class PromptTuning(TuningStrategy):
    """Train vectors in the input of the frozen model: before the text in a decoder, after [CLS] in an encoder.

    Args:
        length: Number of vectors; they take as many positions of the model's context.
        init: How they start where there is no init_text; as tokens of the vocabulary, or random with the embedding's spread.
        init_text: Text whose tokens they start as; repeated or cut to length.
        init_ids: The same as token ids, instead of init_text.
    """

    traits = Traits(
        learning_rate=1e-2, starts_at_base=False,
        paper="Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning",
    )  # fmt: skip

    length: int = 20
    init: Literal["vocabulary", "random"] = "vocabulary"
    init_text: str | None = None
    init_ids: list[int] | None = None

    def __post_init__(self) -> None:
        check_length(self.length)
        check_start(self.init_text, self.init_ids)

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        return self if self.init_text is None else replace(self, init_text=None, init_ids=ids_of(self.init_text, tokenizer))

    def virtual_tokens(self) -> int:
        return self.length

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        if self.init_text is not None:
            raise ConfigError("model.tuning.init_text needs the tokenizer; call bind(tokenizer) before apply.")
        return attach(Vectors(self._start(model)), self.length, model, heads)

    def _start(self, model: nn.Module) -> Tensor:
        if self.init == "random" and self.init_ids is None:
            size = vocabulary(model)
            some = embedded(model, torch.linspace(0, size - 1, min(size, 1000)).long())
            return torch.randn(self.length, some.shape[1]) * some.std()
        return embedded(model, start_ids(model, self.length, self.init_ids))

    def save(self, model: nn.Module, folder: Path) -> None:
        save_prompt(self, model, folder)


def check_length(length: int) -> None:
    """Refuse a number of virtual tokens below 1.

    Raises:
        ConfigError: It is.
    """
    if length < 1:
        raise ConfigError(f"model.tuning.length is {length}; it must be at least 1.")


def check_start(text: str | None, ids: list[int] | None) -> None:
    """Refuse a text or token ids to start from that say nothing, or both.

    Raises:
        ConfigError: They are; the message says what to do.
    """
    if text is not None and ids is not None:
        raise ConfigError("model.tuning.init_text and model.tuning.init_ids are both set; choose one of them.")
    if ids == [] or (text is not None and not text.strip()):
        raise ConfigError(f"model.tuning.{'init_ids' if text is None else 'init_text'} is empty; give a token, or leave it out.")


def ids_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a text's own tokens.

    Raises:
        ConfigError: It has none.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise ConfigError(f"model.tuning.init_text {text!r:.60} has no token; write other words, or leave it out.")
    return ids


def vocabulary(model: nn.Module) -> int:
    """The number of tokens that a model knows."""
    config: Any = model.config
    return int(config.get_text_config().vocab_size)


def start_ids(model: nn.Module, length: int, given: list[int] | None) -> Tensor:
    """(P,) token ids to start from: those given, repeated or cut, else a sample of the vocabulary.

    Raises:
        ConfigError: An id is outside of the vocabulary.
    """
    size = vocabulary(model)
    if given is None:
        return torch.randint(size, (length,))
    wrong = [i for i in given if not 0 <= i < size]
    if wrong:
        raise ConfigError(f"model.tuning.init_ids has {wrong[0]}; the ids of this model are 0 to {size - 1}.")
    return torch.tensor(given).repeat(-(-length // len(given)))[:length]


def embedded(model: nn.Module, ids: Tensor) -> Tensor:
    """(P,) token ids → (P, D) in float32, as the model's own embedding gives them."""
    with torch.no_grad():
        found: Tensor = model.get_input_embeddings()(ids.to(device_of(model)))  # type: ignore[operator]
    return found.detach().float().cpu().clone()
