"""What is asked of a model's files before transformers reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ftlab.errors import CheckpointError, ConfigError, SecurityError

_PLAIN_IMPLEMENTATIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", "batched_mm")
"""What a stored configuration may name as an implementation; any other word can be a repository of code."""


def refuse_code(stored: Mapping[str, object], name: str) -> None:
    """Refuse a configuration that would bring its own code.

    Args:
        stored: The content of config.json.
        name: Of the model, for the message.

    Raises:
        SecurityError: It would.
    """
    from transformers import CONFIG_MAPPING

    if "auto_map" in stored and stored.get("model_type") not in CONFIG_MAPPING:
        raise SecurityError(
            f"{name}/config.json needs code of its own (auto_map), which ftlab never runs; name a model that transformers has."
        )
    for key in ("_attn_implementation_internal", "_experts_implementation_internal"):
        if key in stored:
            raise SecurityError(f"{name}/config.json sets {key}, which can load foreign code; remove the key.")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if stored.get(key) not in _PLAIN_IMPLEMENTATIONS:
            raise SecurityError(f"{name}/config.json sets {key} to {stored[key]!r}, which can load foreign code; remove the key.")
    for inner in stored.values():
        if isinstance(inner, Mapping):
            refuse_code(inner, name)


def require_weights(folder: Path, name: str, pickled_weights: bool) -> None:
    """Refuse a local folder that lacks weights; what is not a folder is left to the hub.

    Args:
        folder: Where the model is.
        name: As configured, for the message.
        pickled_weights: Whether pickle files will do.

    Raises:
        CheckpointError: The index of the weights names a file that is absent or cannot be read.
        ConfigError: There are no weights of an accepted kind.
    """
    if not folder.is_dir() or (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        absent = sorted(shard for shard in _shards(index, name) if not (folder / shard).is_file())
        if absent:
            raise CheckpointError(
                f"model.backbone.name {name} lacks {absent[0]}, which {index.name} names; fetch or write the weights again."
            )
        return
    pickled = sorted(p.name for p in folder.glob("pytorch_model.bin*"))
    if pickled and pickled_weights:
        return
    found = f"only {pickled[0]}, which needs model.backbone.pickled_weights" if pickled else "no weights"
    raise ConfigError(
        f"model.backbone.name {name} holds {found}; it needs a model.safetensors file, "
        "or set model.backbone.fresh to true for random weights."
    )


def _shards(index: Path, name: str) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"model.backbone.name {name} has a damaged {index.name}; fetch or write the weights again.") from error
