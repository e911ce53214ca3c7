"""What virtual tokens of any kind ask of a model, and the arithmetic of their places in a row."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.context import context_of
from ftlab.errors import ConfigError
from ftlab.heads import body_of
from ftlab.probe import device_of, hidden_states, probe_inputs, unlike

NAME = "soft_prompt"
"""The last part of the name of the module that holds a model's virtual tokens; there can be one."""


class Entry:
    """How the module that turns tokens into hidden states is called: by which names, with how many positions, and whether it looks ahead.

    Args:
        length: P.
        model: A HF model.

    Raises:
        ConfigError: The model cannot have virtual tokens; the message says why.
    """

    def __init__(self, length: int, model: nn.Module) -> None:
        config: Any = model.config
        kind = type(model).__name__
        if find_held(model) is not None:
            raise ConfigError(f"{kind} has virtual tokens already; use one of PromptTuning, PTuning and PrefixTuning at a time.")
        self.length = length
        self.context = context_of(config)
        inside = [] if config.is_encoder_decoder else _entrances(model)
        if not inside:
            raise ConfigError(f"{kind} does not take inputs_embeds and an attention_mask alone, as virtual tokens need; choose LoRA.")
        self.place, body = inside[-1]
        self.names = names_of(body)
        self.check_room(probe_inputs(model, 8)["input_ids"].shape[1])
        self.causal = not _looks_ahead(model, body)
        if self.causal and not {"past_key_values", "position_ids"} <= set(self.names):
            raise ConfigError(f"{kind} takes no past_key_values and position_ids, so no text can go on from virtual tokens; choose LoRA.")

    def install(self, held: nn.Module, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        """Make `held` a part of `model`, in which nothing but it and the heads is trained then; gives the module that is entered."""
        body = model.get_submodule(self.place)
        model.requires_grad_(False)
        # In a shorter type than float32 an optimiser's small steps would round to nothing.
        body.add_module(NAME, held.to(device_of(model), torch.float32).requires_grad_(True))
        for head in heads.values():
            head.requires_grad_(True)
        return body

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name.

        Raises:
            ConfigError: The attention mask or the positions are not (B, T).
        """
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        for key in ("attention_mask", "position_ids"):
            tensor = given.get(key)
            if tensor is not None and not (isinstance(tensor, Tensor) and tensor.ndim == 2):
                raise ConfigError(f"virtual tokens need {key} of shape (batch, tokens); generate with cache_implementation dynamic.")
        return given

    def check_room(self, tokens: int) -> None:
        """Refuse rows that are too long.

        Raises:
            ConfigError: There are fewer positions than virtual tokens and tokens.
        """
        total = self.length + tokens
        if self.context is not None and total > self.context:
            raise ConfigError(
                f"model.tuning.length is {self.length}, which with rows of {tokens} tokens makes {total}, but the model has positions "
                f"for {self.context}; set it lower, or data.max_length to {max(self.context - self.length, 0)}."
            )


def before(given: Mapping[str, Any]) -> int:
    """How many positions of these rows are in the cache already."""
    cache = given.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def counted(mask: Tensor) -> Tensor:
    """The position of every token of a mask (B, T), wherever its padding is."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def spread(virtual: Tensor, real: Tensor, start: Tensor) -> Tensor:
    """(B, P, …) before place `start` (B, 1) of (B, T, …): (B, P+T, …)."""
    length = virtual.shape[1]
    place = torch.arange(length + real.shape[1], device=real.device)
    inside = torch.where(place < start + length, place - start, place)
    return _taken(torch.cat([virtual, real], 1), torch.where(place < start, place + length, inside))


def without(whole: Tensor, start: Tensor, length: int) -> Tensor:
    """(B, P+T, …) without the P = `length` places from `start` (B, 1) on: (B, T, …)."""
    place = torch.arange(whole.shape[1] - length, device=whole.device)
    return _taken(whole, torch.where(place < start, place, place + length))


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    wide = index.view(*index.shape, *[1] * (rows.ndim - 2))
    return rows.gather(1, wide.expand(*index.shape, *rows.shape[2:]))


def find_held(model: nn.Module) -> nn.Module | None:
    """The module that holds the virtual tokens of `model`."""
    return next((module for name, module in model.named_modules() if name.rpartition(".")[2] == NAME), None)


def names_of(module: nn.Module) -> list[str]:
    """The names of what a module is called with, in order."""
    return list(inspect.signature(module.forward).parameters)


def _entrances(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules below the heads that take vectors in place of tokens, by name, outermost first.

    The innermost is the one that a model's own head is certain to call: `OPTForCausalLM` passes by `OPTModel`.
    """
    embedding, body = model.get_input_embeddings(), body_of(model)  # type: ignore[operator]
    within = {module for module in body.modules() if any(part is embedding for part in module.modules())}
    needed = {"inputs_embeds", "attention_mask"}
    return [(name, module) for name, module in model.named_modules() if module in within and needed <= set(names_of(module))]


def _looks_ahead(model: nn.Module, body: nn.Module) -> bool:
    """Whether a token's hidden state depends on the tokens after it, found by running the model twice."""
    inputs = probe_inputs(model, model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
    other = {**inputs, "input_ids": torch.cat([inputs["input_ids"][:, :-1], inputs["input_ids"][:, :1]], dim=1)}
    seen = [states[:, :-1] for states in hidden_states(model, body, [inputs, other])]
    if len(seen) != 2:
        raise ConfigError(f"{type(model).__name__} does not call its {type(body).__name__} once, as virtual tokens need; choose LoRA.")
    return unlike(*seen)
