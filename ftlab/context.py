"""How long a sequence a model has positions for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_POSITIONS_AFTER_PADDING = frozenset({
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Model types that count positions from `pad_token_id + 1`, so that their table is longer than their context."""


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence that a model of this HF configuration has positions for, in tokens; None where it has no limit."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if limit is None or limit < 0:
        return None
    if text.model_type in _POSITIONS_AFTER_PADDING:
        limit -= (text.pad_token_id or 0) + 1
    return int(limit)
