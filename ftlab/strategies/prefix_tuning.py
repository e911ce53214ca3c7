"""Prefix tuning: trained keys and values in every attention layer of a frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.errors import ConfigError
from ftlab.heads import body_of
from ftlab.probe import device_of, probing
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.prompt_tuning import check_length, check_start, ids_of, start_ids
from ftlab.strategies.soft_prompt import save_beside
from ftlab.strategies.virtual_tokens import Entry, before, counted, find_held, names_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Behind:
    """An attention layer's cache as the layer sees it: behind given keys and values, which are not part of it.

    Args:
        cache: The cache itself, if there is one.
        prefix: Keys and values, each (1, heads, P, head width); None notes in `seen` what the layer hands over.
    """

    def __init__(self, cache: Any, prefix: tuple[Tensor, Tensor] | None) -> None:
        self.cache = cache
        self.prefix = prefix
        self.seen: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # that of transformers' caches
        """The keys and values (B, heads, P + past + T, head width) to attend to, from those of new tokens."""
        if self.cache is not None:
            keys, values = self.cache.update(keys, values, *args, **kwargs)
        if self.prefix is None:
            self.seen = keys, values
            return keys, values
        ours, theirs = (t.to(keys.dtype).expand(len(keys), -1, -1, -1) for t in self.prefix)
        return torch.cat([ours, keys], 2), torch.cat([theirs, values], 2)


class Attention:
    """How an attention module is called.

    Args:
        module: The module, whose `forward` takes a cache.
    """

    def __init__(self, module: nn.Module) -> None:
        self.names = names_of(module)
        self.cache = next(name for name in _CACHES if name in self.names)
        self.causal = bool(getattr(module, "is_causal", True))  # as transformers reads it

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], prefix: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
        """The arguments of a call by name, with a cache behind the prefix."""
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        return given | {self.cache: Behind(given.get(self.cache), prefix)}

    def masked(self, given: Mapping[str, Any], length: int) -> Tensor | None:
        """The attention mask (B, 1, T, P + past + T) in which every token sees the prefix; None hides nothing.

        transformers leaves the mask out where all of a row is seen, or where nothing is in the cache and the kernel knows the rest.
        """
        mask: Tensor | None = given.get("attention_mask")
        if mask is not None:
            return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
        hidden: Tensor = given[self.names[0]]
        tokens = hidden.shape[1]
        if not self.causal or tokens == 1:
            return None
        return torch.ones(tokens, length + tokens, dtype=torch.bool, device=hidden.device).tril(length)[None, None]


_CACHES = ("past_key_values", "layer_past")


class Prefix(nn.Module):
    """P keys and P values for every attention layer.

    The layer's cache never holds them: they are put before what it gives, so that recomputed activations see them as well.

    Args:
        states: Keys and values (1, heads, P, head width) of every layer to start from.
        hidden: Width of the network that makes them; None trains them themselves.
        entry: How the body is called.
    """

    def __init__(self, states: list[tuple[Tensor, Tensor]], hidden: int | None, entry: Entry) -> None:
        super().__init__()
        self.entry = entry
        self.shapes = [(k.shape[1], k.shape[3]) for k, _ in states]
        start = torch.cat([torch.stack([k[0], v[0]]).permute(2, 0, 1, 3).flatten(1) for k, v in states], 1).float().cpu()
        if hidden is None:
            self.weight = nn.Parameter(start.clone())
        else:  # the paper's section 4.3
            heads, width = self.shapes[0]
            self.inputs = nn.Parameter(torch.randn(len(start), heads * width))
            self.network = nn.Sequential(nn.Linear(heads * width, hidden), nn.Tanh(), nn.Linear(hidden, start.shape[1]))

    def forward(self) -> Tensor:
        """(P, layers · 2 · heads · head width)."""
        made: Tensor = self.network(self.inputs) if hasattr(self, "network") else self.weight
        return made

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each (1, heads, P, head width)."""
        first = sum(2 * heads * width for heads, width in self.shapes[:layer])
        heads, width = self.shapes[layer]
        part = slice(first, first + 2 * heads * width)
        if hasattr(self, "network"):
            last: Any = self.network[2]
            made = F.linear(self.network[:2](self.inputs), last.weight[part], last.bias[part])
        else:
            made = self.weight[:, part]
        keys, values = made.view(-1, 2, heads, width).permute(1, 2, 0, 3)[:, None]
        return keys, values

    def shift(self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        """Positions of a decoder go on from the prefix, as in the paper's own code and in PEFT: a hook on the body."""
        given = self.entry.named(args, kwargs)
        if not self.entry.causal:
            return (), given
        past, positions, mask = before(given), given.get("position_ids"), given.get("attention_mask")
        tokens = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
        if not past:
            self.entry.check_room(tokens.shape[1])
        if positions is None and mask is not None:
            positions = counted(mask)[:, past:]
        elif positions is None:
            positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)[None]
        return (), given | {"position_ids": positions + self.entry.length}

    def insert(
        self, layer: int, attention: Attention, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """Put the prefix before a layer's keys and values: a hook on its attention."""
        given = attention.given(args, kwargs, self.of(layer))
        return (), given | {"attention_mask": attention.masked(given, self.entry.length)}


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(TuningStrategy):
    """Train keys and values that every token attends to, in every layer of the frozen model.

    In a decoder the text's positions start behind the prefix; in an encoder they stay. A window of the attention does not hide it.

    Args:
        length: Keys and values per layer; in a decoder they take as many positions of the model's context.
        init: How they start where there is no init_text; as those of vocabulary tokens, or random with the same spread.
        init_text: Text whose tokens' keys and values they start as; repeated or cut to length.
        init_ids: The same as token ids, instead of init_text.
        hidden: Width of a network that makes the keys and values and is trained instead; null trains them directly.
    """

    traits = Traits(
        learning_rate=1e-2, starts_at_base=False,
        paper="Li and Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation",
    )  # fmt: skip

    length: int = 20
    init: Literal["vocabulary", "random"] = "vocabulary"
    init_text: str | None = None
    init_ids: list[int] | None = None
    hidden: int | None = None

    def __post_init__(self) -> None:
        check_length(self.length)
        check_start(self.init_text, self.init_ids)
        if self.hidden is not None and self.hidden < 1:
            raise ConfigError(f"model.tuning.hidden is {self.hidden}; it must be at least 1, or null.")
        if self.hidden is not None and (self.init_text is not None or self.init_ids is not None):
            raise ConfigError("model.tuning.hidden makes the prefix by a network, which cannot start from a text; set one of them.")

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        return self if self.init_text is None else replace(self, init_text=None, init_ids=ids_of(self.init_text, tokenizer))

    def virtual_tokens(self) -> int:
        return self.length

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        if self.init_text is not None:
            raise ConfigError("model.tuning.init_text needs the tokenizer; call bind(tokenizer) before apply.")
        how = getattr(model.config, "_attn_implementation", None)
        if how not in ("eager", "sdpa"):
            raise ConfigError(f"model.backbone.attention is {how}; keys and values of a prefix need sdpa or eager, so set one of them.")
        takers = _takers(model)
        entry = Entry(self.length, model)
        states = _states(model, takers, start_ids(model, self.length, self.init_ids))
        given = list(states.values())
        if self.init == "random" and self.init_ids is None:
            given = [(_like(keys), _like(values)) for keys, values in given]
        prefix = Prefix(given, self.hidden, entry)
        entry.install(prefix, model, heads).register_forward_pre_hook(prefix.shift, with_kwargs=True)
        for number, module in enumerate(states):
            module.register_forward_pre_hook(partial(prefix.insert, number, Attention(module)), with_kwargs=True)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        from peft import PrefixTuningConfig

        prefix: Any = find_held(model)
        config: Any = model.config
        windowed = getattr(config.get_text_config(), "sliding_window", None)  # PEFT's prefix falls out of a window
        settings = None
        if prefix.entry.causal and windowed is None and len(set(prefix.shapes)) == 1:
            heads, width = prefix.shapes[0]
            settings = PrefixTuningConfig(
                num_virtual_tokens=self.length, num_layers=len(prefix.shapes), num_attention_heads=heads, token_dim=heads * width
            )
        with torch.no_grad():
            save_beside(self, model, folder, settings, prefix())


def _like(states: Tensor) -> Tensor:
    return torch.randn(states.shape) * states.float().std().cpu()


def _takers(model: nn.Module) -> list[nn.Module]:
    """The modules that take keys and values themselves, rather than hand them on.

    Raises:
        ConfigError: There are none.
    """
    body = body_of(model)
    takers = {m for m in body.modules() if m is not body and not {*_CACHES}.isdisjoint(names_of(m))}
    if not takers:
        raise _no_cache(model)
    return [m for m in takers if not any(other in takers for other in m.modules() if other is not m)]


def _states(model: nn.Module, takers: list[nn.Module], ids: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Attention module → its keys and values (1, heads, P, head width) of tokens (P,).

    Raises:
        ConfigError: The model's attention takes no keys and values from outside.
    """
    found: dict[nn.Module, Behind] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        attention = Attention(module)
        given = attention.given(args, kwargs, None)
        found[module] = given[attention.cache]
        return (), given

    handles = [m.register_forward_pre_hook(note, with_kwargs=True) for m in takers]
    try:
        with probing(model):
            body_of(model)(input_ids=ids[None].to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    states = {module: behind.seen for module, behind in found.items() if behind.seen is not None}
    if not states:
        raise _no_cache(model)
    return states


def _no_cache(model: nn.Module) -> ConfigError:
    return ConfigError(f"the attention of {type(model).__name__} takes no keys and values from outside, which a prefix is; choose LoRA.")
