"""Writing what PEFT layers hold as a folder that plain PEFT opens on the untouched base."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlab.errors import ConfigError
from ftlab.growth import GrownEmbedding, GrownLinear, NewRows

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_NEED_MEMORY = ("ADALORA", "ADAMSS", "BOFT", "FROD", "SHIRA", "UNILORA")
"""Methods whose layers or tensors cannot be had without memory; MonteCLoRA's neither, and those of ADAMSS depend on the weights."""


class Start(nn.Module):
    """The A and B that were taken out of a base weight when the adapter was made."""

    NAME = "ftlab_start"
    a: Tensor
    b: Tensor

    def __init__(self, a: Tensor, b: Tensor, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("a", a.detach().clone(), persistent=persistent)
        self.register_buffer("b", b.detach().clone(), persistent=persistent)


def start_of(layer: nn.Module) -> Start | None:
    """What a LoRA layer started from, where that was taken out of the base."""
    start = getattr(layer, Start.NAME, None)
    return start if isinstance(start, Start) else None


def remember_start(model: nn.Module) -> None:
    """Keep the A and B that PiSSA or OLoRA took out of the base, so that an export can give them back.

    They are no part of a state dict: `apply` finds them again.
    """
    for layer in _layers(model).values():
        layer.add_module(Start.NAME, Start(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight))  # type: ignore[index, union-attr]


def starts_in_base(model: nn.Module) -> bool:
    """Whether the adapters of `model` took their start out of the base."""
    return any(isinstance(m, Start) for m in model.modules())


class PeftDiffersError(ConfigError):
    """PEFT's format has a place for all of it, but PEFT computes something else."""


def save_lora(model: nn.Module, folder: Path) -> None:
    """Write a PEFT folder.

    Fresh heads become `modules_to_save`, new tokens `trainable_token_indices`. An adapter that took its start out of the base
    (PiSSA, OLoRA) becomes a plain one of twice the rank, [A; A0] and [B, -B0], over the base as it was.

    Args:
        model: A HF model with PEFT's layers in it.
        folder: Where to.

    Raises:
        ConfigError: PEFT's format cannot hold what was trained.
        PeftDiffersError: It can, and PEFT would not compute the same.
    """
    config: LoraConfig = _config(model)
    held = dict(_held(model))
    expected = expected_tensors(model, config)
    beside = sorted(held.keys() - expected.keys()) + sorted(expected.keys() - held.keys() - _base_names(model))
    if beside:
        raise ConfigError(f"an adapter in PEFT's format has no place for '{beside[0]}'; use `ftlab export --merge` instead.")
    base = {_PREFIX + name: t for name, t in model.state_dict().items()}
    tensors = {name: held[name] if name in held else base[name] for name in expected}
    _write(tensors, config, folder)


def save_injected(model: nn.Module, tuner: Any, folder: Path) -> None:
    """Write the layers of any method of PEFT as PEFT itself would, with fresh heads and new tokens.

    Args:
        model: A HF model with the layers in it.
        tuner: What put them there.
        folder: Where to.

    Raises:
        ConfigError: PEFT's format has no place for something that was trained.
    """
    from peft import get_peft_model_state_dict

    config = _config(model)
    root = _Root(tuner)
    tensors = get_peft_model_state_dict(root, state_dict=root.state_dict(), save_embedding_layers=False)
    layers = _layers(model)
    for name, tensor in _beside(model, layers):
        tensors.setdefault(name, tensor)
    places = {f.name for f in dataclasses.fields(config)}
    for field in ("modules_to_save", "trainable_token_indices"):
        if getattr(config, field) and field not in places:
            raise ConfigError(f"PEFT's format has no {field} for {config.peft_type.value}, so what is trained beside it has no place.")
    _write(tensors, config, folder)


class _Root(nn.Module):
    """A tuner below the name that it has in PEFT's own model class."""

    def __init__(self, tuner: nn.Module) -> None:
        super().__init__()
        self.base_model = tuner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)


def _beside(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """What is trained outside the method's own parts, under PEFT's names."""
    for name, tensor in _held(model):
        inside = any(name.startswith(f"{_PREFIX}{layer}.") for layer in layers)
        if not inside:
            yield name, tensor


def _write(tensors: Mapping[str, Tensor], config: PeftConfig, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    config.save_pretrained(folder)


def expected_tensors(model: nn.Module, config: PeftConfig) -> dict[str, Tensor]:
    """Name → a tensor, mostly without memory, for everything that an adapter of this configuration holds on this model.

    Args:
        model: A HF model; what it holds is looked at only where the shapes depend on it.
        config: The adapter's.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    plain: Any = copy.deepcopy(config)
    plain.inference_mode = False
    if isinstance(plain, LoraConfig):
        plain.init_lora_weights = False
    if config.peft_type.value in _NEED_MEMORY or getattr(config, "monteclora_config", None):
        with without_notice(), torch.random.fork_rng(devices=[]):
            built = get_peft_model(copy.deepcopy(model), plain)
    else:
        with torch.device("meta"), without_notice():
            built = get_peft_model(type(model)._from_config(copy.deepcopy(model.config)), plain)  # type: ignore[attr-defined]
    state = get_peft_model_state_dict(built, state_dict=built.state_dict(), save_embedding_layers=False)
    # With bias: all PEFT also lists the biases of its own two copies of a head.
    copies = {"original_module", "modules_to_save"}
    return {name: t for name, t in state.items() if copies.isdisjoint(name.split("."))}


@contextmanager
def without_notice() -> Iterator[None]:
    """Without two notices of PEFT 0.21: it reads a name which transformers 5.23 deprecates, and takes AdaLoRA's rank pattern for LoRA's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rank_pattern keys did not match.*", RuntimeWarning)
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        yield


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    from peft.tuners.adaption_prompt.layer import AdaptedAttention, AdaptedAttentionGPT
    from peft.tuners.tuners_utils import BaseTunerLayer

    kinds = (BaseTunerLayer, AdaptedAttention, AdaptedAttentionGPT)
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds)}


def _config(model: nn.Module) -> Any:
    """The adapter's configuration as plain PEFT needs it."""
    from peft import LoraConfig

    config: Any = copy.deepcopy(model.peft_config[ADAPTER])  # type: ignore[index]
    heads = sorted(_heads(model))
    config.inference_mode = True
    if isinstance(config, LoraConfig):
        config.init_lora_weights = True
        config.eva_config = config.corda_config = config.lora_ga_config = None
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
    """Name of an embedding → the ids of its new rows; one tied to another follows it.

    Raises:
        PeftDiffersError: An output with new rows has a bias.
    """
    found: dict[str, list[int]] = {}
    seen: set[NewRows] = set()
    for name, module in model.named_modules():
        if isinstance(module, GrownLinear) and module.bias is not None:
            raise PeftDiffersError(
                f"PEFT leaves out the bias of '{name}' where rows for new tokens are trained; use `ftlab export --merge`."
            )
        if isinstance(module, GrownEmbedding | GrownLinear) and module.new not in seen:
            seen.add(module.new)
            found[name] = list(range(module.first, module.first + len(module.new.weight)))
    return found


def is_kind_of(model: nn.Module, mapping: Any) -> bool:
    """Whether an auto class of transformers makes this kind of model.

    Args:
        model: The model.
        mapping: What the auto class looks its models up in, by the type of their configuration; to go through its values would import
            some two hundred kinds of models, which takes seconds.
    """
    return mapping.get(type(getattr(model, "config", None)), None) is type(model)


def _task_type(model: nn.Module, heads: list[str]) -> str | None:
    """PEFT's word for the kind of model; it saves the modules `classifier` and `score` of a sequence classifier itself."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if is_kind_of(model, MODEL_FOR_CAUSAL_LM_MAPPING):
        return "CAUSAL_LM"
    own = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("classifier", "score")}
    return "SEQ_CLS" if is_kind_of(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING) and own and own <= set(heads) else None


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
    start = start_of(module)
    if part == "lora_magnitude_vector":
        return f"{_PREFIX}{layer}.{part}", parameter
    if start is not None:
        first = part == "lora_A"
        parameter = torch.cat([parameter, (start.a if first else -start.b).to(parameter)], 0 if first else 1)
    return f"{_PREFIX}{layer}.{part}.weight", parameter


def _base_names(model: nn.Module) -> set[str]:
    return {_PREFIX + name for name in model.state_dict()}
