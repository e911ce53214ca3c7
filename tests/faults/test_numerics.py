"""Losses, gradients and frozen weights that go wrong in the middle of a run (N1-N3, N7-N10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ftlab import checkpoint_io
from ftlab.commands.verify import equal
from tests.conftest import Command
from tests.faults.conftest import GOOD, Run

PLUGIN = '''
from dataclasses import dataclass
import torch
import torch.distributed as dist
from ftlab import TuningStrategy

@dataclass(frozen=True, kw_only=True)
class Bad(TuningStrategy):
    """Goes wrong.

    Args:
        kind: How.
        steps: When.
        rank: Where.
    """

    kind: str = "none"
    steps: list[int] | None = None
    rank: int = 0

    def apply(self, model, heads):
        model.requires_grad_(False)
        if self.kind != "nothing":
            model.model.layers[0].self_attn.q_proj.requires_grad_(True)
        return model

    def extra_losses(self, model, outputs, batch):
        here = dist.get_rank() if dist.is_initialized() else 0
        if getattr(model, "done", 0) + 1 not in (self.steps or []) or here != self.rank:
            return {}
        weight = model.model.layers[0].self_attn.q_proj.weight
        if self.kind == "nan":
            return {"bad": weight.sum() * float("nan")}
        if self.kind == "inf":
            return {"bad": torch.tensor(float("inf"))}  # its gradient is zero
        if self.kind == "gradient":
            term = (weight - weight.detach()).sum()
            term.register_hook(lambda g: g * float("inf"))
            return {"bad": term}
        return {}

    def on_step(self, model, step, total):
        model.done = step
        if self.kind == "moves" and step in (self.steps or []):
            with torch.no_grad():
                model.model.norm.weight[0] += 1e-3
'''


def write(folder: Path, kind: str, steps: list[int], **more: Any) -> None:
    (folder / "bad.py").write_text(PLUGIN)
    config = {
        **GOOD,
        "model": {**GOOD["model"], "tuning": {"class_path": "Bad", "init_args": {"kind": kind, "steps": steps, **more.pop("init", {})}}},
        "data": {**GOOD["data"], "batch_size": 1, "seed": 3},
        "trainer": {"max_steps": 4, "max_epochs": None, "accelerator": "cpu", **more.pop("trainer", {})},
        "save": {"every_n_steps": 1, "keep": 9},
        "run": {"root": str(folder / "runs"), "name": "x", "id": kind},
    }
    config["model"].update(more)
    (folder / "bad.yaml").write_text(yaml.safe_dump(config))


FIT = ("fit", "--config", "bad.yaml", "--plugin", "bad.py")


def checkpoints(folder: Path, kind: str) -> dict[int, dict[str, Any]]:
    place = folder / "runs" / "x" / kind / "checkpoints"
    return {e.step: checkpoint_io.load(place / name) for name, e in checkpoint_io.Manifest.read(place).files.items()}


def rows_of_step(folder: Path, warm: Run, step: int) -> list[int]:
    """Which rows a healthy run has at a step."""
    write(folder, "none", [])
    (folder / "trace").mkdir()
    assert warm(*FIT, env={"FTLAB_TRACE": str(folder / "trace")}).code == 0
    lines = [json.loads(line) for line in (folder / "trace" / "rank0.jsonl").read_text().splitlines()]
    return [row for line in lines if line["step"] == step for row in line["rows"]]


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_number_that_is_not_finite_ends_the_run_and_names_the_rows(folder: Path, warm: Run, kind: str) -> None:
    rows = rows_of_step(folder, warm, 2)
    write(folder, kind, [2])
    result = warm(*FIT)
    assert result.code == 5, result.err
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("ftlab: error: the gradient of step 2 is "), sentence
    assert f"from rows {', '.join(map(str, rows))};" in sentence
    saved, healthy = checkpoints(folder, kind), checkpoints(folder, "none")
    assert list(saved) == [1]
    assert equal(saved[1]["state_dict"], healthy[1]["state_dict"])
    assert not (folder / "runs" / "x" / kind / "summary.json").exists()


def test_a_step_that_is_left_out_moves_neither_weights_nor_moments(folder: Path, warm: Run) -> None:
    write(folder, "nan", [2], skip_nonfinite=1)
    result = warm(*FIT)
    assert result.code == 0, result.err
    assert "step 2 is left out" in result.err
    saved = checkpoints(folder, "nan")
    for part in ("state_dict", "optimizer_states"):
        states = {step: content[part] for step, content in saved.items()}
        if part == "optimizer_states":
            states = {step: [s["state"] for s in content] for step, content in states.items()}
        assert equal(states[1], states[2])
        assert not equal(states[2], states[3])


def test_more_bad_steps_than_allowed_end_the_run(folder: Path, warm: Run) -> None:
    write(folder, "nan", [2, 3, 4], skip_nonfinite=2)
    result = warm(*FIT)
    assert result.code == 5
    assert result.err.count("is left out") == 2
    assert "the gradient of step 4" in result.err


def test_a_bad_number_on_one_rank_ends_both_with_one_message(folder: Path, ftlab: Command) -> None:
    write(folder, "nan", [2], init={"rank": 1}, trainer={"devices": 2, "strategy": "ddp"})
    result = ftlab(*FIT, cwd=folder)
    assert result.returncode == 5, result.stderr
    assert result.stderr.count("ftlab: error:") == 1, result.stderr
    sentence = next(line for line in result.stderr.splitlines() if line.startswith("ftlab: error:"))
    assert "the gradient of step 2 is nan, from rows" in sentence
    rows = sentence.partition("from rows ")[2].partition(";")[0].split(", ")
    assert len(rows) == 2, sentence  # a row of each rank: it may be anyone's
    assert list(checkpoints(folder, "nan")) == [1]


def test_a_frozen_tensor_that_moves_is_named(folder: Path, warm: Run) -> None:
    write(folder, "moves", [3])
    result = warm(*FIT)
    assert result.code == 5
    assert "the frozen tensor 'model.norm.weight' changed in the run (1 did)" in result.err.splitlines()[-1]
    assert not (folder / "runs" / "x" / "moves" / "summary.json").exists()  # it would call the run complete


def test_frozen_tensors_that_stay_are_no_error(folder: Path, warm: Run) -> None:
    write(folder, "moves", [])
    assert warm(*FIT).code == 0


def test_nothing_to_train_is_refused_with_the_count(folder: Path, warm: Run) -> None:
    from ftlab.backbone import Backbone

    write(folder, "nothing", [])
    result = warm(*FIT)
    model, _ = Backbone(name="ftlab/tiny-llama").load_model("AutoModelForCausalLM", {}, {})
    assert result.code == 2
    assert f"none of {sum(p.numel() for p in model.parameters()):,} parameters trainable" in result.err.splitlines()[-1]


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf"])
def test_a_clip_that_is_no_positive_number_is_refused(warm: Run, value: str) -> None:
    result = warm("fit", "--config", "good.yaml", "--trainer.gradient_clip_val", value)
    assert result.code == 2
    assert result.sentence.startswith("trainer.gradient_clip_val is ")


@pytest.mark.parametrize("value", ["-1", "1.5"])
def test_a_count_of_steps_to_skip_is_a_whole_number(warm: Run, value: str) -> None:
    result = warm("fit", "--config", "good.yaml", "--model.skip_nonfinite", value)
    assert result.code == 2
    assert "skip_nonfinite" in result.sentence


def test_decay_leaves_frozen_tensors_alone(tmp_path: Path) -> None:
    from torch.optim import AdamW

    from ftlab import Backbone, FinetuneData, FinetuneModule
    from ftlab.data.sources.in_memory import Rows
    from ftlab.strategies.lora import LoRA
    from ftlab.tasks.causal_lm import CausalLM
    from tests.unit.training import texts, trainer

    backbone = Backbone(name="ftlab/tiny-llama")
    tuning = LoRA(r=2, target_modules=["q_proj"])
    module = FinetuneModule(backbone, CausalLM(block_size=16), tuning, lambda groups: AdamW(groups, lr=0.1, weight_decay=0.5))
    data = FinetuneData(Rows(items=[{"text": t} for t in texts(12)]), val_split=None, batch_size=2)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    base, _ = backbone.load_model("AutoModelForCausalLM", {}, {})
    before = base.state_dict()
    owned = tuning.owned(module.adapted)
    frozen = {n.replace(".base_layer", ""): t for n, t in module.adapted.state_dict().items() if n not in owned}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[n], before[n]) for n in before)
