"""Adapters and exports that would run code, claim too much, or are whole models with a tensor wrong (X15, X16)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

import ftlab
from ftlab.adapter_check import open_adapter
from ftlab.errors import CheckpointError, SecurityError
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.full import Full
from tests.faults.adapter_files import CONFIG, WEIGHTS, base, configured, peft_takes, refused
from tests.unit.exports import LLAMA, difference, ids, logits, trained


def test_whole_models_are_checked_too(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    export_run(trained(Full()), folder, Facts())
    (folder / "ftlab.json").unlink()
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({n: t for n, t in tensors.items() if n != "model.layers.0.mlp.up_proj.weight"}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'model.layers.0.mlp.up_proj.weight'"):
        ftlab.load(folder)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' holds NaN or infinity"):
        ftlab.load(folder)


def test_x15_pickle(foreign: Path, tmp_path: Path) -> None:
    """X15."""
    (foreign / WEIGHTS).unlink()
    marker = tmp_path / "PWNED"
    (foreign / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    refused(foreign, SecurityError, "is a pickle, which can run code")
    (foreign / CONFIG).unlink()
    refused(foreign, CheckpointError, f"has no {CONFIG}")
    assert not marker.exists()


def test_x15_foreign_code(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "PWNED"
    for name in ("evm", "evm2"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {"base_model_class": "X", "parent_library": "evm2"}
    configured(foreign, auto_mapping=mapping, base_model_name_or_path="evil/model", task_type=None)
    model = open_adapter(base(), foreign)
    assert difference(logits(model, ids(LLAMA)), logits(peft_takes_clean(foreign), ids(LLAMA))) <= 1e-6
    configured(foreign, megatron_config={"tensor_model_parallel_size": 1}, megatron_core="evm")
    refused(foreign, SecurityError, "names a package to import")
    configured(foreign, peft_type="PROMPT_TUNING", tokenizer_kwargs={"trust_remote_code": True})
    refused(foreign, CheckpointError, "peft_type 'PROMPT_TUNING'")
    assert not marker.exists()


def peft_takes_clean(folder: Path) -> nn.Module:
    configured(folder, auto_mapping=None)
    return peft_takes(folder).eval()


def test_x16_claims(foreign: Path) -> None:
    path = foreign / WEIGHTS
    path.write_bytes((100 * 2**30).to_bytes(8, "little") + path.read_bytes()[8:])
    refused(foreign, CheckpointError, "its header alone claims 107374182400")


OUTSIDE = json.dumps({"format": 1, "files": {"../x": {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}}})


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 99, "files": {}}', OUTSIDE])
def test_records_are_not_believed(good: Path, text: str) -> None:
    (good.parent / "x").write_text("x")
    (good / "ftlab.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"is damaged|reads up to|lacks \.\./x"):
        ftlab.load(good)
