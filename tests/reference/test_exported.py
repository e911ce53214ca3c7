"""Exported folders in a process that has only transformers and peft: the same logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from ftlab.backbone import Backbone
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.tasks.base import Task
from tests.reference import exported_plain
from tests.unit.exports import BERT, CLASSES, LANGUAGE, LLAMA, difference, grown, ids, logits, trained

EXACT = 1e-6
REARRANGED = 1e-5
"""PiSSA and OLoRA take their start out of the base weights, which rounds them; the export puts it back."""

Case = tuple[TuningStrategy, Backbone, Task, float]
CASES: dict[str, Case] = {}
for _name, _backbone, _task in (("causal", LLAMA, LANGUAGE), ("classes", BERT, CLASSES)):
    CASES |= {
        f"full-{_name}": (Full(), _backbone, _task, EXACT),
        f"full-new-{_name}": (Full(last_layers=1), grown(_backbone), _task, EXACT),
        f"lora-{_name}": (LoRA(r=4), _backbone, _task, EXACT),
        f"lora-new-{_name}": (LoRA(r=4), grown(_backbone), _task, EXACT),
        f"bias-{_name}": (LoRA(r=4, bias="all", rslora=True), _backbone, _task, EXACT),
        f"dora-{_name}": (LoRA(r=4, dora=True), _backbone, _task, EXACT),
        f"pissa-{_name}": (LoRA(r=4, init="pissa", alpha_pattern={".*0.*": 2.0}, rank_pattern={".*1.*": 2}), _backbone, _task, REARRANGED),
        f"olora-{_name}": (LoRA(r=4, init="olora", rslora=True), _backbone, _task, REARRANGED),
    }
CASES["lora-llama-classes"] = (LoRA(r=4, rank_pattern={"q_proj": 2}), LLAMA, CLASSES, EXACT)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, Tensor]]:
    """Case → (logits of the trained model, logits of the exported folder in another process)."""
    root = tmp_path_factory.mktemp("exported")
    expected, requests = {}, []
    for name, (tuning, backbone, task, _) in CASES.items():
        module = trained(tuning, backbone, task)
        tokens = ids(backbone)
        expected[name] = logits(module.adapted, tokens)
        assert export_run(module, root / name, Facts())
        requests.append({"folder": str(root / name), "ids": tokens.tolist(), "out": str(root / f"{name}.safetensors")})
    script = Path(exported_plain.__file__)
    subprocess.run([sys.executable, str(script)], input=json.dumps(requests), text=True, check=True, cwd=root, capture_output=True)
    return {name: (expected[name], load_file(root / f"{name}.safetensors")["logits"]) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_same_logits_without_ftlab(name: str, results: dict[str, tuple[Tensor, Tensor]]) -> None:
    expected, got = results[name]
    assert difference(expected, got) <= CASES[name][3]
