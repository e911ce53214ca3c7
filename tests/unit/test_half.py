"""Half precision throughout: only the weights change their type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ftlab.batch import Batch
from ftlab.half import HalfWeights, half_plugin
from tests.conftest import Command


def test_a_batch_keeps_its_types_and_sums_their_default() -> None:
    labels = torch.tensor([0.1, torch.nan])
    batch = Batch(inputs={"input_ids": torch.ones(2, 3, dtype=torch.long)}, labels={"score": labels}, rows=torch.arange(2))
    plugin = HalfWeights("bf16-true")
    assert plugin.convert_input(batch) is batch
    with plugin.forward_context():
        assert torch.tensor(float(257)).item() == 257  # bfloat16 has 256 and 258
    assert plugin.convert_module(torch.nn.Linear(2, 2)).weight.dtype == torch.bfloat16


def test_only_half_precision_needs_it() -> None:
    assert half_plugin("16-true") is not None
    assert [half_plugin(p) for p in ("32-true", "bf16-mixed", None, 32)] == [None] * 4


@pytest.mark.parametrize("tuning", ["LoRA", "Full"])
def test_a_run_is_opened_again_by_every_command(tuning: str, ftlab: Command, tmp_path: Path) -> None:
    rows = [{"text": "one two three four"}, {"text": "five six seven"}]
    config = {
        "model": {"backbone": {"name": "ftlab/tiny-llama"}, "task": "CausalLM", "tuning": tuning},
        "data": {"source": {"class_path": "Rows", "init_args": {"items": {"train": rows, "val": rows}}}},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "precision": "bf16-true"}, "run": {"name": "half", "id": "a"},
    }  # fmt: skip
    (tmp_path / "half.yaml").write_text(json.dumps(config), encoding="utf-8")
    last = "runs/half/a/checkpoints/last.ckpt"
    for words in (
        ["fit", "--config", "half.yaml"],
        ["validate", "--config", "half.yaml", "--run.id", "b", "--ckpt_path", last],
        ["export", "runs/half/a", "--to", "out"],
        ["fit", "--resume", "runs/half/a", "--trainer.max_steps", "3"],
    ):
        done = ftlab(*words)
        assert done.returncode == 0, (words, done.stderr)
    figures = json.loads((tmp_path / "runs/half/a/summary.json").read_text(encoding="utf-8"))
    assert figures["steps"] == 3
    assert all(t.dtype == torch.bfloat16 for t in torch.load(tmp_path / last, weights_only=True)["state_dict"].values())
