"""Tiny models with random weights, written to a folder as the hub would hold them, one for each family that ftlab is proven on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftlab.errors import ConfigError, suggest
from ftlab.testing.tokenizer import SPECIALS, byte_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONTEXT = 64
"""The longest input of every tiny model, in tokens."""

_SHAPE: dict[str, object] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,  # with the usual 0.02, so narrow a network hardly depends on its input
}
_GROUPED: dict[str, object] = {"num_key_value_heads": 2, "head_dim": 8}
_DISENTANGLED: dict[str, object] = {  # as DeBERTa-v3 has it
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "pooler_hidden_size": 32,
}

_DECODERS: dict[str, dict[str, object]] = {
    "gemma": {**_SHAPE, **_GROUPED},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "initializer_range": 0.2},
    "gpt_neox": _SHAPE,
    "llama": {**_SHAPE, **_GROUPED},
    "mistral": {**_SHAPE, **_GROUPED, "sliding_window": 16},
    "opt": {**_SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2},
    "qwen2": {**_SHAPE, "num_key_value_heads": 2},
    "qwen3": {**_SHAPE, **_GROUPED},
}
_ENCODERS: dict[str, dict[str, object]] = {
    "bert": _SHAPE,
    "deberta-v2": {**_SHAPE, **_DISENTANGLED},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": CONTEXT, "initializer_range": 0.2},
    "electra": {**_SHAPE, "embedding_size": 16},
    "modernbert": {**_SHAPE, "local_attention": 16, "global_attn_every_n_layers": 2},
    "roberta": {**_SHAPE, "max_position_embeddings": CONTEXT + SPECIALS.index("<pad>") + 1},
}
_OTHERS: dict[str, dict[str, object]] = {"albert": {**_SHAPE, "embedding_size": 16}}
"""Encoders that some task is for, without being one of those that every strategy is proven on."""
_SHAPES = _DECODERS | _ENCODERS | _OTHERS

DECODERS = tuple(_DECODERS)
"""Model types of the decoders; their folders hold the weights of `AutoModelForCausalLM`."""
ENCODERS = tuple(_ENCODERS)
"""Model types of the encoders; their folders hold the weights of `AutoModelForMaskedLM`."""
FAMILIES = (*DECODERS, *ENCODERS)
"""The model types that every strategy is proven on."""
EVERY = tuple(_SHAPES)
"""Every model type that `tiny_model_folder` can write."""


def tiny_config(family: str, settings: Mapping[str, object] | None = None) -> PretrainedConfig:
    """The configuration of a tiny model.

    Args:
        family: One of `EVERY`, a `model_type` of transformers.
        settings: Entries that differ from the tiny default, such as `tie_word_embeddings`.

    Raises:
        ConfigError: There is no such family.
    """
    from transformers import AutoConfig

    if family not in EVERY:
        raise ConfigError(f"'{family}' is not one of the tiny models; {suggest(family, EVERY)}")
    entries: dict[str, object] = {"vocab_size": 256 + len(SPECIALS)}
    for role, token in (("pad", "<pad>"), ("bos", "<s>"), ("eos", "</s>"), ("cls", "<s>"), ("sep", "</s>")):
        entries[f"{role}_token_id"] = SPECIALS.index(token)
    config: PretrainedConfig = AutoConfig.for_model(family, **{**entries, **_SHAPES[family], **(settings or {})})
    return config


def tiny_model_folder(family: str, folder: Path, settings: Mapping[str, object] | None = None, seed: int = 0) -> Path:
    """Write configuration, random weights (safetensors) and a tokenizer of bytes.

    Args:
        family: One of `EVERY`, a `model_type` of transformers.
        folder: Where to; it is made, and overwritten.
        settings: Entries of the configuration that differ from the tiny default.
        seed: Of the weights; torch's own generator is left as it was.

    Returns:
        `folder`.

    Raises:
        ConfigError: There is no such family.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    config = tiny_config(family, settings)
    auto = AutoModelForCausalLM if family in _DECODERS else AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = auto.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    segments = (getattr(config, "type_vocab_size", None) or 0) > 1
    byte_tokenizer(pairs=family not in _DECODERS, segments=segments).save_pretrained(folder)
    return folder
