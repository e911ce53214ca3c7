"""A method of PEFT and its fields, from plain values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftlab.errors import ConfigError, EnvironmentFault, suggest

if TYPE_CHECKING:
    from peft import PeftConfig

Scalar = bool | int | float | str | None
Plain = Scalar | list[Scalar] | dict[str, Scalar | list[Scalar]]
"""What a field of PEFT can be given in YAML."""

_INSTEAD = {
    "PROMPT_TUNING": "PromptTuning",
    "MULTITASK_PROMPT_TUNING": "PromptTuning",
    "CPT": "PromptTuning",
    "P_TUNING": "PTuning",
    "PREFIX_TUNING": "PrefixTuning",
    "CARTRIDGE": "PrefixTuning",
}
_APART = {
    "XLORA": "mixes adapters that other runs have finished and runs the model twice for each batch",
    "SHADOW": "trains a second network beside the model",
}
"""Methods that PEFT itself cannot inject, and what they do instead."""
_OURS = {
    "adapters": "an adapter is named where it is opened",
    "alora_invocation_tokens": "only PEFT's own model class looks for the invocation",
    "arrow_config": "it routes between adapters that other runs have finished",
    "auto_mapping": "ftlab writes it",
    "base_model_name_or_path": "model.backbone.name says it",
    "inference_mode": "the command says whether to train",
    "layer_replication": "it makes another model",
    "megatron_config": "it names a package to import",
    "megatron_core": "it names a package to import",
    "modules_to_save": "fresh heads are trained and saved anyhow",
    "peft_type": "model.tuning.method says it",
    "peft_version": "ftlab writes it",
    "revision": "model.backbone.revision says it",
    "task_type": "model.task says it",
    "total_step": "the run knows its steps",
    "trainable_token_indices": "model.backbone.new_tokens says it",
    "use_bdlora": "it is for models that are cut across devices",
    "cache_file": "what is computed from data stays in the run",
    "covariance_file": "what is computed from data stays in the run",
}
"""Fields that are no option here, with the reason."""


def method_named(name: str) -> str:
    """PEFT's own name of a method that adapts by injected layers.

    Raises:
        ConfigError: There is none of that name, or it works in another way.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    method = name.upper()
    if method in _INSTEAD:
        raise ConfigError(
            f"model.tuning.method is {method}, which puts learnt tokens before the input and injects no layers; "
            f"use {_INSTEAD[method]}, one of PromptTuning, PTuning and PrefixTuning."
        )
    if method in _APART:
        raise ConfigError(f"model.tuning.method is {method}, which {_APART[method]}; choose a method that injects layers, such as LORA.")
    if method not in known:
        raise ConfigError(
            f"model.tuning.method is '{name}', which PEFT does not have; {suggest(method, known - _INSTEAD.keys() - _APART.keys())}"
        )
    return method


def build_config(method: str, options: Mapping[str, Plain], given: Mapping[str, object] | None = None) -> PeftConfig:
    """The configuration of a method.

    Args:
        method: PEFT's name.
        options: Values of its fields, as configured.
        given: Values that come from ftlab; they win.

    Raises:
        ConfigError: A field does not exist or is not the user's to set, or PEFT refuses a value.
        EnvironmentFault: The method needs a package that is not installed.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[method]]
    values = _values(kind, options, "model.tuning.options", method)
    return _made(kind, {**values, **(given or {})}, method)


def fields_of(method: str) -> set[str]:
    """Names of the fields of a method."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    return {f.name for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[method]])}


def _values(kind: type, options: Mapping[str, Plain], key: str, method: str) -> dict[str, object]:
    allowed = {f.name for f in dataclasses.fields(kind) if f.init and f.name not in _OURS}
    hints = typing.get_type_hints(kind)
    found: dict[str, object] = {}
    for name, value in options.items():
        if name in _OURS:
            raise ConfigError(f"{key}.{name} is no option: {_OURS[name]}; leave it out.")
        if name not in allowed:
            raise ConfigError(f"{key} has '{name}', which is no field of PEFT's {method}; {suggest(name, allowed, 5)}")
        inner = next((t for t in (hints[name], *typing.get_args(hints[name])) if dataclasses.is_dataclass(t) and isinstance(t, type)), None)
        if inner is not None and isinstance(value, Mapping):
            found[name] = _made(inner, _values(inner, value, f"{key}.{name}", method), method)
        else:
            found[name] = value
    return found


def _made(kind: type, values: dict[str, object], method: str) -> typing.Any:
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.tuning.options is refused by PEFT's {method}: {str(error).splitlines()[0]}") from error
    except ImportError as error:
        raise EnvironmentFault(f"PEFT's {method} needs a package that is missing: {str(error).splitlines()[0]}") from error
