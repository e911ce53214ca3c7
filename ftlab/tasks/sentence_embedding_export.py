"""The files by which sentence-transformers opens an exported folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from ftlab.tasks.pooling import Pooling

log = logging.getLogger(__name__)

_MODES = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}


def write_modules(folder: Path, pooling: Pooling, normalize: bool, cosine: bool) -> None:
    """Write what sentence-transformers asks of a folder, under the older names, which version 6 reads as well.

    A folder that it cannot open gets nothing: an adapter in ftlab's own format, or one whose base transformers cannot find.

    Args:
        folder: Of a Hugging Face model, or a PEFT adapter.
        pooling: How a vector comes from hidden states.
        normalize: Whether vectors are brought to length 1.
        cosine: Whether two vectors are compared by their cosine; else by their product.
    """
    width = _width(folder)
    if width is None:
        log.info("%s: no files for sentence-transformers, which cannot open it; `ftlab export --merge` writes a folder that it can", folder)
        return
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(parts)
    ]
    modes = {f"pooling_mode_{mode}": pooling == name for name, mode in _MODES.items()}
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine" if cosine else "dot"})
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if normalize:
        _write(folder / "2_Normalize" / "config.json", {})


def _width(folder: Path) -> int | None:
    """D of the folder's model, by its own configuration or that of the base which its adapter names."""
    from transformers import AutoConfig

    place, revision = str(folder), None
    if not (folder / "config.json").is_file():
        if not (folder / "adapter_config.json").is_file():
            return None
        entries = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        place, revision = entries["base_model_name_or_path"], entries["revision"]
    try:
        config = AutoConfig.from_pretrained(place, revision=revision, local_files_only=True, trust_remote_code=False)
    except OSError:
        return None
    return int(config.get_text_config().hidden_size)


def _write(path: Path, content: list[dict[str, object]] | Mapping[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
