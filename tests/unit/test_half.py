"""Half precision throughout: only the weights change their type."""

from __future__ import annotations

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


def test_a_run(ftlab: Command) -> None:
    words = ["--model.backbone.name", "ftlab/tiny-llama", "--model.task", "CausalLM", "--model.tuning", "LoRA", "--data.source", "Rows"]
    rows = [
        "--data.source.items",
        "[{text: one two three four}, {text: five six seven}]",
        "--data.val_split",
        "null",
        "--trainer.max_steps",
        "1",
    ]
    done = ftlab("fit", *words, *rows, "--trainer.accelerator", "cpu", "--trainer.precision", "bf16-true")
    assert done.returncode == 0, done.stderr
