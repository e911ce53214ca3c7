"""Opening an exported folder, a foreign PEFT folder, a Hugging Face folder or one in ftlab's own format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftlab.adapter_check import open_adapter, read_config
from ftlab.adapters import CONFIG, WEIGHTS
from ftlab.backbone import Backbone
from ftlab.errors import CheckpointError, ConfigError
from ftlab.fingerprints import base_fingerprint
from ftlab.folders import RECORD, read_record
from ftlab.growth import grow
from ftlab.heads import fresh_modules
from ftlab.native import TENSORS, TUNING, fill, read_tuning
from ftlab.quantised import options_of
from ftlab.spec import built_from
from ftlab.strategies.applied import applied
from ftlab.strategies.base import Placement, TuningStrategy

_BY_TASK_TYPE = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}


def is_adapter(folder: Path) -> bool:
    """Whether `folder` needs a base model."""
    return is_native(folder) or any((folder / name).exists() for name in (CONFIG, WEIGHTS, "adapter_model.bin"))


def is_native(folder: Path) -> bool:
    """Whether `folder` is an adapter in ftlab's own format."""
    return (folder / TENSORS).exists() or (folder / TUNING).exists()


def open_folder(folder: Path, base: Backbone | None = None) -> nn.Module:
    """The model of a folder, in evaluation mode.

    Args:
        folder: What ftlab exported, a PEFT folder or a Hugging Face folder.
        base: What an adapter belongs to; None takes what ftlab wrote down. The base that a foreign adapter names is not used.

    Raises:
        CheckpointError: It is damaged, or the adapter is not of this base.
        ConfigError: It is an adapter that ftlab did not write, and no base is given.
        SecurityError: It is a pickle, names foreign code, or would overwrite weights of the base.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name a run, an exported folder, a PEFT folder or a Hugging Face folder.")
    record = read_record(folder)
    if not is_adapter(folder):
        return _open_whole(folder, record)
    if is_native(folder):
        return _open_native(folder, record, base)
    config = read_config(folder)
    if record is None and base is None:
        raise ConfigError(f"{folder} is an adapter that ftlab did not write; say which model it belongs to with base=.")
    auto_class = _auto_class(_read(record, "auto_class", folder) if record else _BY_TASK_TYPE.get(str(config.task_type)), folder)
    if base is None:
        base = _recorded_base(_read(record or {}, "base", folder), folder)
    options = _quantisation(record, folder)
    model, missing = base.load_model(auto_class, _model_options(record, folder), options)
    if record:
        if not options:
            _check_base(_read(record, "base", folder), model, missing, base, folder)
        _prepare(model, record)
    return open_adapter(model, folder)


def _open_native(folder: Path, record: Mapping[str, Any] | None, base: Backbone | None) -> nn.Module:
    if record is None:
        raise CheckpointError(f"{folder} has no {RECORD}, so it is no whole adapter; export the run again.")
    tuning: TuningStrategy = built_from(read_tuning(folder), "strategies")
    base = base or _recorded_base(_read(record, "base", folder), folder)
    options = tuning.load_options(Placement(device=torch.device("cpu"), precision="32-true"))
    model, missing = base.load_model(_auto_class(_read(record, "auto_class", folder), folder), _model_options(record, folder), options)
    if not options:
        _check_base(_read(record, "base", folder), model, missing, base, folder)
    model.config.pad_token_id = record.get("pad_token_id")
    heads = fresh_modules(model, missing, base)
    tokenizer = Backbone(name=str(folder.resolve())).load_tokenizer()
    heads |= grow(model, replace(base, new_tokens=list(record.get("new_tokens") or [])), tokenizer)
    adapted = applied(tuning.bind(tokenizer), model, heads)
    fill(adapted, tuning.owned(adapted), folder)
    return adapted.eval()


def _open_whole(folder: Path, record: Mapping[str, Any] | None) -> nn.Module:
    auto_class = _auto_class(record.get("auto_class") if record else _by_architecture(folder), folder)
    model, missing = Backbone(name=str(folder.resolve()), dtype="auto").load_model(auto_class, {}, {})
    if missing:
        raise CheckpointError(f"{folder} lacks the tensor '{min(missing)}'; it is damaged, so export it again.")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{folder}: the tensor '{name}' holds NaN or infinity; train or export it again.")
    model.eval()
    return model


def _auto_class(name: object, folder: Path) -> str:
    """`name`, which is an auto class of transformers."""
    import transformers
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, _BaseAutoModelClass)):
        raise CheckpointError(f"{folder} does not say what kind of model it is ({name!r:.60} is no auto class of transformers).")
    return str(name)


def _by_architecture(folder: Path) -> str | None:
    """The auto class of the architecture that config.json names."""
    import transformers

    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named, model_type = stored.get("architectures") or [None], stored.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder} has no config.json that can be read, so it is neither run, adapter nor model.") from error
    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        return None
    config = transformers.CONFIG_MAPPING[model_type]
    for auto_class in (*_BY_TASK_TYPE.values(), "AutoModelForMaskedLM", "AutoModelForPreTraining"):
        kind = getattr(transformers, auto_class)._model_mapping.get(config, None)
        if isinstance(kind, type) and named[0] == kind.__name__:
            return auto_class
    return None


def _read(record: Mapping[str, Any], key: str, folder: Path) -> Any:
    if key not in record:
        raise CheckpointError(f"{folder / RECORD} has no '{key}'; export the run again.")
    return record[key]


def _recorded_base(entry: Any, folder: Path) -> Backbone:
    try:
        return Backbone(name=entry["name"], revision=entry["revision"], dtype=entry["dtype"], attention=entry["attention"])
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / RECORD} does not say what the base model is; export the run again.") from error


def _check_base(entry: Mapping[str, Any], model: nn.Module, missing: set[str], base: Backbone, folder: Path) -> None:
    """Refuse other weights than those that the adapter was trained on, where they are of the same type and can be compared."""
    trained_on = entry.get("fingerprint")
    if trained_on is None or base.dtype != entry.get("dtype"):
        return
    if base_fingerprint(model.state_dict(), missing) != trained_on:
        raise CheckpointError(f"{folder} belongs to other weights than {base.name} has now; give base= the model it was trained on.")


def _model_options(record: Mapping[str, Any] | None, folder: Path) -> dict[str, object]:
    if record is None:
        return {}
    options = dict(_read(record, "model_options", folder))
    if "id2label" in options:
        options["id2label"] = {int(i): name for i, name in options["id2label"].items()}  # JSON has no other keys than text
    return options


def _quantisation(record: Mapping[str, Any] | None, folder: Path) -> dict[str, object]:
    try:
        return options_of((record or {}).get("quantisation"))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / RECORD} does not say how the base was quantised; export the run again.") from error


def _prepare(model: Any, record: Mapping[str, Any]) -> None:
    """What the training did to the base before the adapter was put on it."""
    model.config.pad_token_id = record.get("pad_token_id")
    rows = record.get("embedding_rows")
    if rows is not None:
        model.resize_token_embeddings(int(rows), mean_resizing=False)
