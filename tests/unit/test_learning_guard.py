"""The verdict after three steps: each fault is seen, named, and seen alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ftlab import Backbone, Batch, FinetuneData, FinetuneModule, TuningStrategy
from ftlab.batch import IGNORE
from ftlab.callbacks.learning_guard import LearningGuard, Policy
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import NumericsError
from ftlab.rows import Stored
from ftlab.strategies.lora import LoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.unit.training import texts, trainer


@dataclass(frozen=True, kw_only=True)
class Norm(TuningStrategy):
    """Trains the final norm; each field plants a fault."""

    idle: int = 0
    touch: bool = False
    asleep: bool = False
    still: bool = False

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.requires_grad_(False)
        model.get_submodule("model.norm").requires_grad_(True)
        for number in range(self.idle):
            model.get_submodule("model.norm").register_parameter(f"extra{number}", nn.Parameter(torch.ones(2)))
        return model

    def on_gradients(self, model: nn.Module, step: int) -> None:
        gradient = model.get_parameter("model.norm.weight").grad
        if self.still and gradient is not None:
            gradient.zero_()

    def on_step(self, model: nn.Module, step: int, total: int) -> None:
        if self.touch:
            model.get_parameter("model.layers.0.mlp.up_proj.weight").data[0, 0] += 1
        if self.asleep:
            model.get_submodule("model.layers.0.mlp").eval()


@dataclass(frozen=True, kw_only=True)
class Odd(CausalLM):
    """Scores less than it should."""

    last_alone: bool = False
    no_stop: bool = False

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        batch = super().collate(examples, tokenizer)
        labels = batch.labels["lm"].clone()
        if self.no_stop:
            labels[labels == 2] = IGNORE
        if self.last_alone:
            labels[:, :-1] = IGNORE
        return replace(batch, labels={"lm": labels})


def fit(folder: Path, tuning: TuningStrategy, task: CausalLM | None = None, policy: Policy = "stop", steps: int = 4) -> None:
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), task or CausalLM(cross_documents=False), tuning)
    data = FinetuneData(
        Rows(items={"train": [{"text": 30 * text} for text in texts(8)]}), val_split=None, batch_size=1, max_length=256, seed=0
    )
    trainer(folder, [LearningGuard(policy)], max_steps=steps, max_epochs=-1).fit(module, datamodule=data)


Log = pytest.LogCaptureFixture


def warnings(log: Log) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING and record.name.startswith("ftlab.")]


@pytest.mark.parametrize("tuning", [Norm(), LoRA(r=2)])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_run_that_learns(tmp_path: Path, tuning: TuningStrategy, steps: int, caplog: Log, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, tuning, steps=steps)
    found = warnings(caplog)
    # After a single step A has had a gradient of zero, since B began at zero.
    assert [line.partition(",")[0] for line in found] == (["learning guard: trainable"] * len(found) if isinstance(tuning, LoRA) else [])
    assert not found or steps == 1
    assert capsys.readouterr().err.count("learning guard") == 1


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (Norm(idle=2), r"trainable, but without a gradient: model\.norm\.extra0, model\.norm\.extra1; mend the strategy"),
        (Norm(touch=True), r"frozen, but it moves: model\.layers\.0\.mlp\.up_proj\.weight; mend the strategy"),
    ],
)
def test_a_run_that_cannot_be_right_ends(tmp_path: Path, tuning: TuningStrategy, message: str) -> None:
    with pytest.raises(NumericsError, match=message):
        fit(tmp_path, tuning)


@pytest.mark.parametrize(
    ("tuning", "task", "message"),
    [
        (Norm(idle=1), CausalLM(), "trainable, but without a gradient: model.norm.extra0"),
        (Norm(still=True), CausalLM(), "trainable, but it does not move: model.norm.weight"),
        (Norm(asleep=True), CausalLM(), "in evaluation mode: model.layers.0.mlp, "),
        (Norm(), Odd(cross_documents=False, last_alone=True), "scored tokens: only 0."),
        (Norm(), Odd(cross_documents=False, no_stop=True), "stop token: it stands "),
    ],
)
def test_what_may_be_meant_is_said(tmp_path: Path, tuning: TuningStrategy, task: CausalLM, message: str, caplog: Log) -> None:
    fit(tmp_path, tuning, task, policy="warn")
    found = warnings(caplog)
    assert found
    assert found[0].startswith(f"learning guard: {message}")


def test_switched_off(tmp_path: Path, caplog: Log, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, Norm(idle=2), policy="off")
    assert not warnings(caplog)
    assert "learning guard" not in capsys.readouterr().err
