"""The bytes of a quantised base: bitsandbytes' own of the stored weights, and the sixteen values of the paper by NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes import functional
from safetensors.torch import load_file

from ftlab.quantised import bytes_of, quantised_maps
from ftlab.strategies.qlora import QLoRA
from tests.unit.exports import LLAMA, trained
from tests.unit.strategies.test_qlora import module_of

# Dettmers et al. 2023, appendix E
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], dtype=np.float32)  # fmt: skip


def stored() -> dict[str, torch.Tensor]:
    return load_file(Path(LLAMA.name) / "model.safetensors")


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_as_bitsandbytes_packs_them(kind: Any, double: bool) -> None:
    model = trained(QLoRA(quant_type=kind, double_quant=double)).adapted
    weights, maps = stored(), quantised_maps(model)
    assert len(maps) > 10
    for name, module in maps.items():
        expected, state = functional.quantize_4bit(
            weights[f"{name.removesuffix('.base_layer')}.weight"].float(), blocksize=64, compress_statistics=double, quant_type=kind
        )
        assert torch.equal(module.weight.data, expected), name
        for key, tensor in state.as_dict(packed=True).items():
            assert torch.equal(model.state_dict()[f"{name}.weight.{key}"], tensor), (name, key)


def test_as_numpy_rounds_to_the_sixteen_values_of_the_paper() -> None:
    weights, maps = stored(), quantised_maps(trained(QLoRA(double_quant=False)).adapted)
    for name, module in maps.items():
        blocks = weights[f"{name.removesuffix('.base_layer')}.weight"].float().numpy().reshape(-1, 64)
        largest = np.abs(blocks).max(1, keepdims=True)
        np.testing.assert_array_equal(module.weight.quant_state.absmax.numpy(), largest[:, 0])
        codes = np.abs((blocks / largest)[..., None] - NF4).argmin(-1)
        found = module.weight.data.numpy().reshape(-1)
        unpacked = np.stack([found >> 4, found & 15], -1).reshape(codes.shape)
        distance = np.abs(NF4[unpacked] - blocks / largest) - np.abs(NF4[codes] - blocks / largest)
        assert distance.max() < 1e-6, name  # where two values are equally near, either will do


@pytest.mark.parametrize(
    ("tuning", "bits"),
    [(QLoRA(), 4 + 8 / 64 + 32 / (64 * 256)), (QLoRA(double_quant=False), 4 + 32 / 64), (QLoRA(bits=8), 8 + 32 / 512)],
    ids=["double", "single", "eight"],
)
def test_bits_per_weight(tmp_path: Path, tuning: QLoRA, bits: float) -> None:
    """Maps of 512 × 512; each map has tables and a description of some 1,300 bytes beside."""
    from ftlab.testing.models import tiny_model_folder

    shape = {"hidden_size": 512, "intermediate_size": 512, "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 1}
    tiny_model_folder("llama", tmp_path / "llama", shape)
    model = module_of(tmp_path, "llama", tuning).adapted
    size, count = bytes_of(model)
    assert count == 7 * 512 * 512
    assert 0 <= size - count * bits / 8 < 7 * 1400
