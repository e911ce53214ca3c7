"""Writing what PEFT layers hold as a folder that plain PEFT opens on the untouched base."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.growth import GrownEmbedding, GrownLinear, NewRows

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_START = "ftlab_start"


class Start(nn.Module):
    """The A and B that were taken out of a base weight when the adapter was made."""

    a: Tensor
    b: Tensor

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a.detach().clone(), persistent=False)
        self.register_buffer("b", b.detach().clone(), persistent=False)


def remember_start(model: nn.Module) -> None:
    """Keep the A and B that PiSSA or OLoRA took out of the base, so that an export can give them back.

    They are no part of a state dict: `apply` finds them again.
    """
    for layer in _layers(model).values():
        layer.add_module(_START, Start(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight))  # type: ignore[index, union-attr]


def starts_in_base(model: nn.Module) -> bool:
    """Whether the adapters of `model` took their start out of the base."""
    return any(isinstance(m, Start) for m in model.modules())


def save_lora(model: nn.Module, folder: Path) -> None:
    """Write a PEFT folder.

    Fresh heads become `modules_to_save`, new tokens `trainable_token_indices`. An adapter that took its start out of the base
    (PiSSA, OLoRA) becomes a plain one of twice the rank, [A; A0] and [B, -B0], over the base as it was.

    Args:
        model: A HF model with PEFT's layers in it.
        folder: Where to.

    Raises:
        ConfigError: PEFT's format cannot hold what was trained.
    """
    from safetensors.torch import save_file

    config = _config(model)
    held = dict(_held(model))
    expected = expected_tensors(type(model), model.config, config)
    beside = sorted(held.keys() - expected.keys()) + sorted(expected.keys() - held.keys() - _base_names(model))
    if beside:
        raise ConfigError(f"an adapter in PEFT's format has no place for '{beside[0]}'; use `ftlab export --merge` instead.")
    base = {_PREFIX + name: t for name, t in model.state_dict().items()}
    tensors = {name: held[name] if name in held else base[name] for name in expected}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    config.save_pretrained(folder)


def expected_tensors(kind: type, model_config: object, config: LoraConfig) -> dict[str, Tensor]:
    """Name → a tensor without memory, for everything that an adapter of this configuration holds on this model.

    Args:
        kind: The HF class of the model.
        model_config: Its HF configuration.
        config: The adapter's.
    """
    from peft import get_peft_model, get_peft_model_state_dict

    plain = copy.deepcopy(config)
    plain.init_lora_weights, plain.inference_mode = False, False
    with torch.device("meta"), without_notice():
        empty = kind._from_config(copy.deepcopy(model_config))  # type: ignore[attr-defined]
        state = get_peft_model_state_dict(get_peft_model(empty, plain), save_embedding_layers=False)
    # With bias: all PEFT also lists the biases of its own two copies of a head.
    copies = {"original_module", "modules_to_save"}
    return {name: t for name, t in state.items() if copies.isdisjoint(name.split("."))}


@contextmanager
def without_notice() -> Iterator[None]:
    """Without the notice that PEFT 0.21 reads a name which transformers 5.23 deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        yield


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    from peft.tuners.lora import LoraLayer

    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def _config(model: nn.Module) -> LoraConfig:
    """The adapter's configuration as plain PEFT needs it."""
    config: LoraConfig = copy.deepcopy(model.peft_config[ADAPTER])  # type: ignore[index]
    heads = sorted(_heads(model))
    config.inference_mode, config.init_lora_weights = True, True
    config.modules_to_save = heads or None
    config.trainable_token_indices = _new_tokens(model) or None
    config.task_type = _task_type(model, heads)
    if starts_in_base(model):
        wider = math.sqrt(2) if config.use_rslora else 2  # alpha / r and alpha / sqrt(r) stay as they were
        config.r, config.lora_alpha = 2 * config.r, wider * config.lora_alpha
        config.rank_pattern = {k: 2 * r for k, r in config.rank_pattern.items()}
        config.alpha_pattern = {k: wider * a for k, a in config.alpha_pattern.items()}
    return config


def _heads(model: nn.Module) -> set[str]:
    """The topmost modules whose own parameters are all trained, beside PEFT's layers and the new tokens."""
    inside = [*_layers(model).values(), *(m for m in model.modules() if isinstance(m, NewRows))]
    taken = {inner for m in inside for inner in m.modules()}
    found: set[str] = set()
    for name, module in model.named_modules():  # parents come first
        own = list(module.parameters(recurse=False))
        below = any(name.startswith(f"{head}.") for head in found)
        if name and own and not below and module not in taken and all(p.requires_grad for p in own):
            found.add(name)
    return found


def _new_tokens(model: nn.Module) -> dict[str, list[int]]:
    """Name of an embedding → the ids of its new rows; one tied to another follows it."""
    found: dict[str, list[int]] = {}
    seen: set[NewRows] = set()
    for name, module in model.named_modules():
        if isinstance(module, GrownEmbedding | GrownLinear) and module.new not in seen:
            seen.add(module.new)
            found[name] = list(range(module.first, module.first + len(module.new.weight)))
    return found


def _task_type(model: nn.Module, heads: list[str]) -> str | None:
    """PEFT's word for the kind of model; it saves the modules `classifier` and `score` of a sequence classifier itself."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind: object = type(model)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING.values():
        return "CAUSAL_LM"
    own = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("classifier", "score")}
    return "SEQ_CLS" if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.values() and own and own <= set(heads) else None


def _held(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every trained tensor under the name that PEFT's format has for it."""
    layers = _layers(model)
    rows = {f"{name}.new.weight": name for name, m in model.named_modules() if isinstance(m, GrownEmbedding | GrownLinear)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in rows:
            yield f"{_PREFIX}{rows[name]}.token_adapter.trainable_tokens_delta", parameter
            continue
        layer = next((n for n in layers if name.startswith(f"{n}.lora_")), None)
        yield (_PREFIX + name, parameter) if layer is None else _lora_tensor(layer, layers[layer], name, parameter)


def _lora_tensor(layer: str, module: nn.Module, name: str, parameter: Tensor) -> tuple[str, Tensor]:
    part = name[len(layer) + 1 :].partition(".")[0]
    start = getattr(module, _START, None)
    if part == "lora_magnitude_vector":
        return f"{_PREFIX}{layer}.{part}", parameter
    if isinstance(start, Start):
        first = part == "lora_A"
        parameter = torch.cat([parameter, (start.a if first else -start.b).to(parameter)], 0 if first else 1)
    return f"{_PREFIX}{layer}.{part}.weight", parameter


def _base_names(model: nn.Module) -> set[str]:
    return {_PREFIX + name for name in model.state_dict()}
