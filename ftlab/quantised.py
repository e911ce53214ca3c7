"""What ftlab knows of bitsandbytes' linear maps of 4 and 8 bits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def quantised_maps(model: nn.Module) -> dict[str, Any]:
    """Name → every quantised linear map of `model`; nothing is imported for a model that has none."""
    loaded = sys.modules.get("bitsandbytes")
    if loaded is None:
        return {}
    kinds = (loaded.nn.Linear4bit, loaded.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def quantised_names(model: nn.Module) -> set[str]:
    """The names in a state dict of packed weights and of what unpacks them, whose bits depend on the device that made them."""
    starts = tuple(f"{name}." for name in quantised_maps(model))
    biases = {f"{start}bias" for start in starts}
    return {name for name in model.state_dict() if name.startswith(starts) and name not in biases} if starts else set()


def keep_bits(model: nn.Module) -> None:
    """Keep bitsandbytes 0.50 from changing frozen tensors in a forward pass.

    On a CPU with AVX512-BF16 it repacks 4-bit weights in evaluation mode, and fails where a row is no multiple of 64. A bias is
    cast for good to the type in which the map computes: of a 4-bit map that type is known, of an 8-bit map it is the input's.
    """
    for module in quantised_maps(model).values():
        if _is_4bit(module):
            module.support_avx512bf16_for_cpu = False
            _compute_in(module, module.compute_dtype)
        elif module.bias is not None:
            module.register_forward_pre_hook(_as_bias)


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Have the 4-bit maps that were to compute in float32 unpack their weights to `dtype` instead."""
    for module in quantised_maps(model).values():
        if _is_4bit(module) and module.compute_dtype == torch.float32:
            _compute_in(module, dtype)


def _compute_in(module: Any, dtype: torch.dtype) -> None:
    module.compute_dtype = dtype
    if module.bias is not None:
        module.bias.data = module.bias.data.to(dtype)


def _as_bias(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].to(module.bias.dtype), *inputs[1:])


def _is_4bit(module: nn.Module) -> bool:
    return hasattr(module, "compute_dtype")


def unpacked(module: Any) -> Tensor:
    """The weight (out, in) that a quantised map stands for; 4 bits in the type it was read in, 8 bits in float32."""
    from bitsandbytes import functional

    weight = module.weight
    if _is_4bit(module):
        found: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
        return found
    scale = module.state.SCB if weight.SCB is None else weight.SCB
    rows: Tensor = functional.int8_vectorwise_dequant(weight.data, scale)
    return rows


def rounded(weight: Tensor, module: Any) -> Tensor:
    """`weight` (out, in) as it is after it was packed in the way of `module` and unpacked again."""
    from bitsandbytes import functional

    if not _is_4bit(module):
        packed, scale, _ = functional.int8_vectorwise_quant(weight.half())
        rows: Tensor = functional.int8_vectorwise_dequant(packed, scale)
        return rows.to(weight.dtype)
    like = module.weight
    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=like.blocksize, compress_statistics=like.compress_statistics, quant_type=like.quant_type
    )
    found: Tensor = functional.dequantize_4bit(packed, state)
    return found.to(weight.dtype)


def plain_map(module: nn.Module) -> nn.Module:
    """A quantised map as an `nn.Linear` of the weights that it stands for; any other module as it is."""
    if not quantised_maps(module):
        return module
    weight, bias = unpacked(module), module.bias
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if isinstance(bias, nn.Parameter):
        made.bias = nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    return made


def unquantise(model: Any) -> None:
    """Turn every quantised map that is left into a plain one, and have the model forget that it was quantised."""
    found = quantised_maps(model)
    for name, module in found.items():
        model.set_submodule(name, as_source(plain_map(module), module))
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer.remove_quantization_config(model)
        model.is_loaded_in_4bit = model.is_loaded_in_8bit = False


def as_source(linear: nn.Module, module: Any) -> nn.Module:
    """`linear` as the class that stood in the place of the quantised `module`, which for GPT-2 has its weight the other way round."""
    if getattr(module, "source_cls", nn.Linear) is not Conv1D:
        return linear
    assert isinstance(linear, nn.Linear)
    made = Conv1D(linear.out_features, linear.in_features)
    made.weight = nn.Parameter(linear.weight.detach().t().contiguous(), requires_grad=False)
    made.bias = linear.bias
    return made


_SETTINGS = (
    "load_in_4bit", "load_in_8bit", "llm_int8_threshold", "llm_int8_skip_modules", "bnb_4bit_compute_dtype", "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage",
)  # fmt: skip
"""Arguments of transformers' `BitsAndBytesConfig` that decide what the weights become."""


def settings_of(model: Any) -> dict[str, object] | None:
    """How a model was quantised, as plain types; None where it was not."""
    maps = quantised_maps(model)
    if not maps:
        return None
    found = model.config.quantization_config.to_dict()
    computed = next((m.compute_dtype for m in maps.values() if _is_4bit(m)), torch.float32)  # `compute_in` may have changed it
    return {name: found[name] for name in _SETTINGS} | {"bnb_4bit_compute_dtype": str(computed).removeprefix("torch.")}


def options_of(settings: Mapping[str, object] | None) -> dict[str, object]:
    """What `from_pretrained` needs to quantise a model in the way of `settings_of`, on the CPU."""
    if settings is None:
        return {}
    from transformers import BitsAndBytesConfig

    chosen: dict[str, Any] = {name: settings[name] for name in _SETTINGS}
    return {"quantization_config": BitsAndBytesConfig(**chosen), "device_map": {"": torch.device("cpu")}}


def bytes_of(model: nn.Module) -> tuple[int, int]:
    """(bytes, weights) of the quantised maps, biases left out: what lies in memory, and how many numbers it stands for."""
    names = quantised_names(model)
    state = model.state_dict()
    size = sum(state[name].numel() * state[name].element_size() for name in names)
    return size, sum(m.in_features * m.out_features for m in quantised_maps(model).values())
