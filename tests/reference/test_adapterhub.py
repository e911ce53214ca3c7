"""Bottleneck adapters and LoReFT against AdapterHub's package on the same weights, in an environment of its own.

`FTLAB_ADAPTERHUB` names the Python of that environment; see `adapterhub.py` for what is installed there.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.bottleneck import Bottleneck, BottleneckAdapter
from ftlab.strategies.loreft import Edit, LoReFT
from ftlab.testing.models import DECODERS, tiny_model_folder
from tests.reference.blocks import spread

PYTHON = os.environ.get("FTLAB_ADAPTERHUB", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON, reason="FTLAB_ADAPTERHUB names no Python that has adapters installed")]

MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
IDS = torch.tensor([[5, 9, 40, 7, 3, 11], [8, 30, 2, 6, 1, 1]])
ENCODERS = ["bert", "roberta", "distilbert", "electra", "deberta-v2"]
NARROW: dict[str, Any] = {"reduction_factor": 4, "non_linearity": "relu"}
EDITS = {"layers": "all", "r": 2, "orthogonality": True, "dropout": 0.0}
FIRST = {**EDITS, "prefix_positions": 2, "suffix_positions": 0, "tied_weights": True}
BOTH = {**EDITS, "prefix_positions": 1, "suffix_positions": 2, "tied_weights": False}
KINDS: dict[str, tuple[TuningStrategy, str, dict[str, Any]]] = {
    "houlsby": (BottleneckAdapter(kind="houlsby", **NARROW), "bottleneck", NARROW),
    # AdapterHub's own Pfeiffer configuration reads the sum with the residual connection, and its norm where that comes after the sum.
    "pfeiffer": (BottleneckAdapter(**NARROW), "bottleneck", {**NARROW, "mh_adapter": False}),
    "parallel": (BottleneckAdapter(kind="parallel", **NARROW), "parallel", NARROW),
    "loreft": (LoReFT(r=2, first=2, last=0), "loreft", FIRST),
    "loreft-untied": (LoReFT(r=2, first=1, last=2, tied=False), "loreft", BOTH),
}
CASES = [
    *((family, kind) for family in ENCODERS for kind in KINDS),
    # Before a norm AdapterHub's parallel adapter reads the residual stream, ours what the MLP reads; the last tokens of a text are
    # for models that do not generate.
    *((family, kind) for family in ("gpt2", "llama", "mistral") for kind in ("houlsby", "pfeiffer", "loreft")),
]


def layer_of(name: str) -> str:
    return next(part for part in name.split(".") if part.isdigit())


def ours(model: nn.Module) -> dict[str, Tensor]:
    """`layer.place.part` → our tensor."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Bottleneck):
            place = "attention" if {"attention", "attn", "self_attn"} & set(name.split(".")) else "mlp"
            found |= {f"{layer_of(name)}.{place}.{part}": p for part, p in module.named_parameters()}
        if isinstance(module, Edit):
            prefix = f"{layer_of(name)}.{name.rpartition('.')[2]}"
            found |= {f"{prefix}.source": module.source, f"{prefix}.bias": module.bias, f"{prefix}.rotation": module.rotation()}
    return found


def prepared(folder: Path, family: str, kind: str) -> nn.Module:
    """Our model, and the folder from which AdapterHub makes the same."""
    strategy, theirs, settings = KINDS[kind]
    auto = "AutoModelForCausalLM" if family in DECODERS else "AutoModelForMaskedLM"
    path = tiny_model_folder(family, folder / "model")
    model: nn.Module = getattr(transformers, auto).from_pretrained(path, attn_implementation="eager").eval()
    strategy.apply(model, {})
    spread(model)
    tensors = {name: t.detach().contiguous().clone() for name, t in ours(model).items()}
    save_file({**tensors, "input_ids": IDS, "attention_mask": MASK}, folder / "given.safetensors")
    (folder / "case.json").write_text(json.dumps({"auto": auto, "kind": theirs, "settings": settings}))
    return model


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[nn.Module, dict[str, Tensor]]]:
    """For each case our model, and what AdapterHub found; it computes all of them in one process."""
    folders = {case: tmp_path_factory.mktemp("-".join(case)) for case in CASES}
    models = {case: prepared(folder, *case) for case, folder in folders.items()}
    script = str(Path(__file__).with_name("adapterhub.py"))
    subprocess.run([PYTHON, script, *map(str, folders.values())], check=True, env={**os.environ, "PYTHONPATH": ""})
    return {case: (models[case], load_file(folder / "found.safetensors")) for case, folder in folders.items()}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_same_as_adapterhub(case: tuple[str, str], results: dict[tuple[str, str], tuple[nn.Module, dict[str, Tensor]]]) -> None:
    model, theirs = results[case]
    real = MASK.bool()
    logits: Tensor = model(input_ids=IDS, attention_mask=MASK).logits
    logits[real].pow(2).mean().backward()
    torch.testing.assert_close(logits.detach()[real], theirs["logits"][real], rtol=1e-5, atol=1e-4)
    own = {f"gradient.{name}": t.grad for name, t in ours(model).items() if t.is_leaf}
    assert own.keys() == theirs.keys() - {"logits"}
    for name, gradient in own.items():
        assert gradient is not None
        assert gradient.any()
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5 * float(theirs[name].abs().max()))
