"""Losses, gradients and frozen weights that go wrong in the middle of a run (N1-N3, N8-N10)."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from ftlab import Backbone, FinetuneData, FinetuneModule
from ftlab.commands.verify import equal
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import CheckpointError, NumericsError
from ftlab.strategies.lora import LoRA
from ftlab.tasks.causal_lm import CausalLM
from tests.conftest import Command
from tests.faults.bad_run import FIT, checkpoints, place, write
from tests.faults.conftest import Result, Run
from tests.unit.training import texts, trainer


class Healthy(NamedTuple):
    """A run in which nothing goes wrong: its checkpoints, and the rows of its second step."""

    saved: dict[int, dict[str, Any]]
    rows: str


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, _warm: Run) -> Healthy:
    folder = tmp_path_factory.mktemp("healthy")
    write(folder, "none", [])
    (folder / "trace").mkdir()
    assert _warm(folder, *FIT, env={"FTLAB_TRACE": str(folder / "trace")}).code == 0
    lines = [json.loads(line) for line in (folder / "trace" / "rank0.jsonl").read_text().splitlines()]
    rows = [row for line in lines if line["step"] == 2 for row in line["rows"]]
    return Healthy(checkpoints(folder, "none"), ", ".join(map(str, rows)))


def stopped(result: Result, folder: Path, kind: str, healthy: Healthy) -> None:
    """The run ended at step 2, names its rows, and has left the checkpoint of step 1 as it was."""
    assert result.code == 5, result.err
    sentence = result.err.splitlines()[-1]
    assert sentence.startswith("ftlab: error: the gradient of step 2 is "), sentence
    assert f"from rows {healthy.rows};" in sentence
    (left_out,) = json.loads((place(folder, kind).parent / "nonfinite.json").read_text())["steps"]
    assert (left_out["step"], ", ".join(map(str, left_out["rows"]))) == (2, healthy.rows)
    saved = checkpoints(folder, kind)
    assert list(saved) == [1]
    assert equal(saved[1]["state_dict"], healthy.saved[1]["state_dict"])
    assert not (place(folder, kind).parent / "summary.json").exists()


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_number_that_is_not_finite_ends_the_run_and_names_the_rows(folder: Path, warm: Run, healthy: Healthy, kind: str) -> None:
    """N1, N2: a loss that is NaN, a loss that is infinite over a finite gradient, an infinite gradient under a finite loss."""
    write(folder, kind, [2])
    stopped(warm(*FIT), folder, kind, healthy)


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_without_the_guard_the_run_goes_on(folder: Path, warm: Run, healthy: Healthy, kind: str) -> None:
    """N1, N2, control."""
    write(folder, kind, [2], off="guard")
    with pytest.raises(AssertionError):
        stopped(warm(*FIT), folder, kind, healthy)
    assert 4 in {int(p.stem.removeprefix("step-")) for p in place(folder, kind).glob("step-*")}


def unmoved(result: Result, folder: Path) -> None:
    assert result.code == 0, result.err
    assert "step 2 is left out" in result.err
    saved = checkpoints(folder, "nan")
    for part in ("state_dict", "optimizer_states"):
        states = {step: content[part] for step, content in saved.items()}
        if part == "optimizer_states":
            states = {step: [s["state"] for s in content] for step, content in states.items()}
        assert equal(states[1], states[2])
        assert not equal(states[2], states[3])


def test_a_step_that_is_left_out_moves_neither_weights_nor_moments(folder: Path, warm: Run) -> None:
    """N1 by policy."""
    write(folder, "nan", [2], skip_nonfinite=1)
    unmoved(warm(*FIT), folder)


def test_without_the_guard_a_bad_step_moves_them(folder: Path, warm: Run) -> None:
    """N1 by policy, control."""
    write(folder, "nan", [2], skip_nonfinite=1, off="guard")
    with pytest.raises((AssertionError, CheckpointError)):
        unmoved(warm(*FIT), folder)


def test_more_bad_steps_than_allowed_end_the_run(folder: Path, warm: Run) -> None:
    """N1 by policy: two may be left out, and there are three."""
    write(folder, "nan", [2, 3, 4], skip_nonfinite=2)
    result = warm(*FIT)
    assert result.code == 5
    assert result.err.count("is left out") == 2
    assert "the gradient of step 4" in result.err


def one_message(result: CompletedProcess[str], folder: Path) -> None:
    assert result.returncode == 5, result.stderr
    assert result.stderr.count("ftlab: error:") == 1, result.stderr
    sentence = next(line for line in result.stderr.splitlines() if line.startswith("ftlab: error:"))
    assert "the gradient of step 2 is nan, from rows" in sentence
    rows = sentence.partition("from rows ")[2].partition(";")[0].split(", ")
    assert len(rows) == 2, sentence  # a row of each rank: it may be anyone's
    assert list(checkpoints(folder, "nan")) == [1]


@pytest.mark.parametrize("off", ["", pytest.param("one voice", marks=pytest.mark.slow)])
def test_a_bad_number_on_one_rank_ends_both_with_one_message(folder: Path, fresh: Command, off: str) -> None:
    """N3, and its control: every rank for itself."""
    write(folder, "nan", [2], init={"rank": 1}, trainer={"devices": 2, "strategy": "ddp"}, off=off)
    result = fresh(*FIT, cwd=folder)
    if not off:
        one_message(result, folder)
        return
    with pytest.raises(AssertionError):
        one_message(result, folder)
    assert result.returncode == 5


def named(result: Result, folder: Path) -> None:
    assert result.code == 5
    assert "the frozen tensor 'model.norm.weight' changed in the run (1 did)" in result.err.splitlines()[-1]
    assert not (place(folder, "moves").parent / "summary.json").exists()  # it would call the run complete


def test_a_frozen_tensor_that_moves_is_named(folder: Path, warm: Run) -> None:
    """N10."""
    write(folder, "moves", [3])
    named(warm(*FIT), folder)


def test_without_the_sums_a_frozen_tensor_moves_unseen(folder: Path, warm: Run) -> None:
    """N10, control."""
    write(folder, "moves", [3])
    with pytest.raises(AssertionError):
        named(warm(*FIT, without=["ftlab.module:check_frozen"]), folder)


def test_frozen_tensors_that_stay_are_no_error(folder: Path, warm: Run) -> None:
    """N10: nothing moves, nothing is said."""
    write(folder, "moves", [])
    assert warm(*FIT).code == 0


def counted(result: Result) -> None:
    model, _ = Backbone(name="ftlab/tiny-llama").load_model("AutoModelForCausalLM", {}, {})
    assert result.code == 2
    assert f"none of {sum(p.numel() for p in model.parameters()):,} parameters trainable" in result.err.splitlines()[-1]


def test_nothing_to_train_is_refused_with_the_count(folder: Path, warm: Run) -> None:
    """N9, and its control: torch's own complaint about an empty list is no answer."""
    write(folder, "nothing", [])
    counted(warm(*FIT))
    write(folder, "nothing", [], off="nothing")
    with pytest.raises(AssertionError):
        counted(warm(*FIT))


def refused(result: Result) -> None:
    assert result.code == 2
    assert result.sentence.startswith("trainer.gradient_clip_val is ")


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf"])
def test_a_clip_that_is_no_positive_number_is_refused(warm: Run, value: str) -> None:
    """N8."""
    refused(warm("fit", "--config", "good.yaml", "--trainer.gradient_clip_val", value))


@pytest.mark.parametrize(("value", "without"), [("0", ["ftlab.cli:check_settings"]), ("-1", ["ftlab.cli:check_settings"]), ("1.0", [])])
def test_a_clip_is_taken_where_nobody_looks_or_it_is_right(warm: Run, value: str, without: list[str]) -> None:
    """N8, control."""
    result = warm("fit", "--config", "good.yaml", "--trainer.gradient_clip_val", value, without=without)
    assert result.code == 0, result.err
    with pytest.raises(AssertionError):
        refused(result)


@pytest.mark.parametrize("value", ["-1", "1.5"])
def test_a_count_of_steps_to_skip_is_a_whole_number(warm: Run, value: str) -> None:
    """N1: the policy's own limits."""
    result = warm("fit", "--config", "good.yaml", "--model.skip_nonfinite", value)
    assert result.code == 2
    assert "skip_nonfinite" in result.sentence


class DecaysAll(AdamW):
    """Decays the whole model, as an optimiser does that is given frozen tensors with a gradient of zero."""

    model: nn.Module

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for parameter in self.model.parameters():
            parameter.mul_(1 - self.defaults["lr"] * self.defaults["weight_decay"])
        return loss


@pytest.mark.parametrize("everything", [False, True])
def test_decay_leaves_frozen_tensors_alone(tmp_path: Path, everything: bool) -> None:
    """N8, and its control: an optimiser that decays frozen tensors too is seen by the comparison, and by the run itself (N10)."""

    def optimizer(groups: Any) -> AdamW:
        made = (DecaysAll if everything else AdamW)(groups, lr=0.1, weight_decay=0.5)
        if isinstance(made, DecaysAll) and module.model is not None:
            made.model = module.model
        return made

    backbone = Backbone(name="ftlab/tiny-llama")
    tuning = LoRA(r=2, target_modules=["q_proj"])
    module = FinetuneModule(backbone, CausalLM(block_size=16), tuning, optimizer)
    data = FinetuneData(Rows(items=[{"text": t} for t in texts(12)]), val_split=None, batch_size=2)
    with pytest.raises(NumericsError, match="the frozen tensor") if everything else nullcontext():
        trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    base, _ = backbone.load_model("AutoModelForCausalLM", {}, {})
    before = base.state_dict()
    owned = tuning.owned(module.adapted)
    frozen = {n.replace(".base_layer", ""): t for n, t in module.adapted.state_dict().items() if n not in owned}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[n], before[n]) for n in before) != everything
