"""Trained vectors in the input of a model: the wrapper that prompt tuning and p-tuning share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlab.adapters import WEIGHTS, is_kind_of
from ftlab.errors import ConfigError
from ftlab.native import save_native
from ftlab.probe import probing
from ftlab.strategies.virtual_tokens import Entry, before, counted, find_held, spread, without

if TYPE_CHECKING:
    from peft import PromptLearningConfig

    from ftlab.strategies.base import TuningStrategy


class SoftPrompt(nn.Module):
    """P trained vectors in the input of a body, whose callers see neither them nor what is computed in their places.

    In a decoder they stand before a row's first token. In an encoder they stand after it, so that [CLS] stays where poolers and
    classification heads look for it. Padding stays outside, on whichever side it is: a row gets what it gets alone.

    Args:
        source: Called without arguments; gives the vectors (P, D).
        entry: How the body is called.
    """

    def __init__(self, source: nn.Module, entry: Entry) -> None:
        super().__init__()
        self.source = source
        self.entry = entry
        self._start: Tensor | None = None  # (B, 1) places of the vectors, while the body runs on them

    def insert(self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        """What the body is called with instead: a hook."""
        given = self.entry.named(args, kwargs)
        self._refuse(given)
        embeds = given.get("inputs_embeds")
        if embeds is None:
            embeds = body.get_input_embeddings()(given["input_ids"])  # type: ignore[operator]
        if before(given):  # a text that goes on has the vectors in its cache
            self._start = None
            return (), given | {"input_ids": None, "inputs_embeds": embeds} | self._masked(given, len(embeds))
        rows, tokens = embeds.shape[:2]
        self.entry.check_room(tokens)
        self._start = self._found(given.get("attention_mask"), rows, embeds.device)
        vectors: Tensor = self.source()
        changed = {"input_ids": None, "inputs_embeds": spread(vectors.to(embeds.dtype).expand(rows, -1, -1), embeds, self._start)}
        segments = given.get("token_type_ids")
        if segments is not None:
            segments = segments.expand(rows, -1)
            changed["token_type_ids"] = spread(segments.new_zeros(rows, self.entry.length), segments, self._start)
        return (), given | changed | self._masked(given, rows)

    def cut(self, body: nn.Module, args: object, outputs: Any) -> Any:
        """What the body's caller gets: hidden states of its own tokens; a hook."""
        from transformers.utils.generic import ModelOutput

        start, self._start = self._start, None
        if start is None:
            return outputs
        if not isinstance(outputs, ModelOutput):
            raise ConfigError(f"{type(body).__name__} gave a tuple, out of which virtual tokens cannot be cut; leave return_dict at true.")
        length = self.entry.length
        outputs["last_hidden_state"] = without(outputs["last_hidden_state"], start, length)
        if outputs.get("hidden_states") is not None:
            outputs["hidden_states"] = tuple(without(hidden, start, length) for hidden in outputs["hidden_states"])
        return outputs

    def _refuse(self, given: Mapping[str, Any]) -> None:
        positions = given.get("position_ids")
        if given.get("attention_mask") is None and positions is not None and bool((positions.diff(dim=1) < 0).any()):
            raise ConfigError("virtual tokens stand before a whole row, but position_ids start anew inside one; do not pack rows.")
        if getattr(given.get("past_key_values"), "is_compileable", False):
            raise ConfigError("virtual tokens do not fit into a cache of fixed size; generate with cache_implementation dynamic.")

    def _found(self, mask: Tensor | None, rows: int, device: torch.device) -> Tensor:
        """(B, 1) places of the first vector."""
        first = torch.zeros(rows, 1, dtype=torch.long, device=device) if mask is None else mask.int().argmax(1, keepdim=True)
        return first if self.entry.causal else first + 1

    def _masked(self, given: Mapping[str, Any], rows: int) -> dict[str, Tensor]:
        """`attention_mask` and `position_ids` that count the vectors in."""
        length, past = self.entry.length, before(given)
        mask, positions = given.get("attention_mask"), given.get("position_ids")
        changed: dict[str, Tensor] = {}
        if mask is not None:
            changed["attention_mask"] = spread(mask.new_ones(rows, length), mask, self._found(mask, rows, mask.device))
        if positions is not None:
            changed["position_ids"] = positions + length if past else self._moved(positions.expand(rows, -1), mask)
        elif mask is not None and self.entry.causal:
            changed["position_ids"] = counted(changed["attention_mask"])[:, past:]
        return changed

    def _moved(self, positions: Tensor, mask: Tensor | None) -> Tensor:
        """(B, P+T) from (B, T): the vectors take their places, and what comes after them moves."""
        start = self._found(mask, len(positions), positions.device)
        after = 0 if self.entry.causal else 1
        ours = positions.gather(1, start - after) + after + torch.arange(self.entry.length, device=positions.device)
        behind = torch.arange(positions.shape[1], device=positions.device) >= start
        return spread(ours, positions + self.entry.length * behind, start)


def attach(source: nn.Module, length: int, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
    """`model`, frozen but for its heads, with the vectors of `source` in its input.

    Args:
        source: Called without arguments; gives the vectors (P, D).
        length: P.
        model: A HF model, changed in place.
        heads: Name → fresh module.

    Raises:
        ConfigError: The model cannot have virtual tokens.
    """
    entry = Entry(length, model)
    prompt = SoftPrompt(source, entry)
    body = entry.install(prompt, model, heads)
    body.register_forward_pre_hook(prompt.insert, with_kwargs=True)
    body.register_forward_hook(prompt.cut)
    return model


def save_prompt(tuning: TuningStrategy, model: nn.Module, folder: Path) -> None:
    """Write ftlab's adapter folder, and beside it PEFT's prompt tuning where the vectors are all that was trained of a language model.

    Plain PEFT opens the folder too, and gives the same logits after P more of its own.
    """
    from peft import PromptTuningConfig

    prompt: Any = find_held(model)
    with probing(prompt):
        vectors: Tensor = prompt.source().float()
    settings = {"num_virtual_tokens": len(vectors), "token_dim": vectors.shape[1]}
    save_beside(tuning, model, folder, PromptTuningConfig(**settings) if prompt.entry.causal else None, vectors)


def save_beside(tuning: TuningStrategy, model: nn.Module, folder: Path, config: PromptLearningConfig | None, vectors: Tensor) -> None:
    """Write ftlab's adapter folder, and beside it PEFT's where that has a place for all that was trained.

    Args:
        tuning: The strategy.
        model: What its `apply` returned.
        folder: Where to.
        config: PEFT's configuration; None where PEFT would not compute the same.
        vectors: What PEFT stores of a prompt.
    """
    from safetensors.torch import save_file
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    save_native(tuning, model, folder)
    held = find_held(model)
    own = set() if held is None else set(held.parameters())
    more = any(p.requires_grad and p not in own for p in model.parameters())
    if config is None or more or not is_kind_of(model, MODEL_FOR_CAUSAL_LM_MAPPING):
        return
    config.task_type, config.inference_mode, config.num_transformer_submodules = "CAUSAL_LM", True, 1
    save_file({"prompt_embeddings": vectors.detach().cpu().contiguous()}, folder / WEIGHTS, {"format": "pt"})
    config.save_pretrained(folder)
